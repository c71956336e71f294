"""Configuration: the typed description of one run, and reading it from YAML, overrides and the guide's files."""

from __future__ import annotations

from anyblock.config.load import load_config
from anyblock.config.schema import RunConfig

__all__ = ["RunConfig", "load_config"]
