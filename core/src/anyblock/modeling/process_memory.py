"""How much memory this process holds, and giving it back; needs no torch."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path
from typing import Final

import psutil

_CLEAR: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")
_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_LARGE: Final = 1 << 20


def resident() -> int:
    """Return the bytes of this process that are in memory, mapped files included."""
    return int(psutil.Process().memory_info().rss)


def reset_peak_memory() -> bool:
    """Start counting the peak anew, where the system can (Linux: `man 5 proc`, clear_refs); say whether it could."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> int | None:
    """Return the largest resident size since the last reset in bytes; since the process began where that is all there is.

    None on systems that do not say.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) << 10
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest << 10


def return_freed_memory() -> None:
    """Have large blocks of memory go back to the system as soon as they are freed; for the rest of the process.

    glibc raises the size from which on it does so to that of the largest block that was freed, up to 32 MiB; weights of layers
    that come and go then leave gaps which it keeps, as much as a whole model. Other C libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Hand small blocks that were freed back to the system, too, where the C library keeps them for later (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
