"""Measuring how much memory a piece of work takes at its peak."""

from __future__ import annotations

import gc
from collections.abc import Callable

from anyblock.modeling.process_memory import peak_memory, reset_peak_memory, resident


def peak_growth(work: Callable[[], object]) -> int | None:
    """Run `work` and return by how many bytes the process's resident memory grew at its peak.

    Returns:
        None where the system does not tell (anything but Linux).
    """
    gc.collect()
    counts = reset_peak_memory()
    before = resident()
    work()
    peak = peak_memory()
    return max(0, peak - before) if counts and before and peak is not None else None
