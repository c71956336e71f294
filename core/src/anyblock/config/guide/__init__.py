"""The guide's configuration files, translated into AnyBlock's own keys."""

from __future__ import annotations

from anyblock.config.guide.translate import has_guide_keys, translate

__all__ = ["has_guide_keys", "translate"]
