"""The levels of conformance, from what can be read off a checkpoint's headers to a whole compression."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """A group of checks that is passed or not as a whole; each builds on those before it."""

    STRUCTURE = "structure"
    """What the hooks say agrees with the checkpoint's tensors; nothing is loaded."""
    CONVERT = "convert"
    """A checkpoint becomes subblock files and comes back as it was."""
    BUILD = "build"
    """Heterogeneous models are built, run layer by layer, decoded with a cache, saved and reloaded."""
    PRUNE = "prune"
    """Smaller subblocks compute what the teacher computes without the removed units."""
    SEARCH = "search"
    """A model is compressed under a budget from end to end."""


FLOORS: Final[dict[Level, int]] = {
    Level.STRUCTURE: 10,
    Level.CONVERT: 2,
    Level.BUILD: 6,
    Level.PRUNE: 6,
    Level.SEARCH: 2,
}
"""How many checks of a level have to pass for the level to count as passed, however few apply to the adapter."""
