"""How much memory this process held at most, in main memory; on Linux since a point of one's choice."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Final

_CLEAR: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")


def reset_peak_memory() -> None:
    """Start counting anew, where the system can (Linux: `man 5 proc`, clear_refs)."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def peak_memory() -> int | None:
    """Return the largest resident size since the last reset in bytes; since the process began where that is all there is.

    None on systems that do not say.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) << 10
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest << 10
