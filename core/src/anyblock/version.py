"""The version of core, for modules that must not import the package's own names."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.2.0"
