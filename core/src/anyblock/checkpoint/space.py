"""Checking for free space before work starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from anyblock.errors import ExecutionError


def require_space(target: Path, needed: int) -> None:
    """Check that the file system on which `target` will be has room for `needed` bytes.

    Raises:
        ExecutionError: it has not.
    """
    place = existing_parent(target)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ExecutionError(
            f"{place} has {readable(free)} free",
            expected=f"{readable(needed)} for {target}",
            hint="free some space or choose another place",
        )


def existing_parent(target: Path) -> Path:
    """Return the target if it is there, or the nearest folder above it that is."""
    place = target.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def readable(size: float) -> str:
    """Return a size in bytes as text: `1.5 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
