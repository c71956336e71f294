"""Measuring how much memory a piece of work takes at its peak."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


def peak_growth(work: Callable[[], object]) -> int | None:
    """Run `work` and return by how many bytes the process's resident memory grew at its peak.

    Returns:
        None where the system does not tell (anything but Linux).
    """
    gc.collect()
    try:
        _CLEAR.write_text("5")  # resets the peak, proc(5)
        before = _field("VmRSS")
    except OSError:
        work()
        return None
    work()
    return max(0, _field("VmHWM") - before)


def _field(name: str) -> int:
    """Return a field of the process's status in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {name}")
