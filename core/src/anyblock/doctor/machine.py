"""The machine: memory, processor threads and free disk space, from the operating system alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from anyblock.doctor.finding import Examined
from anyblock.modeling.system_memory import memory

_SCARCE: Final = 1 << 30


def examine_machine() -> Examined:
    """Look at memory, threads and disk; sizes are in bytes. Less than 1 GiB of free disk is a fault."""
    section = Examined("Machine")
    total, available = memory()
    section.facts["memory_total"] = total
    section.facts["memory_available"] = available
    section.facts["cpu_threads"] = cpu_threads()
    section.facts["omp_num_threads"] = os.environ.get("OMP_NUM_THREADS")
    for key, folder in (("disk_free_here", Path.cwd()), ("disk_free_temporary", Path(tempfile.gettempdir()))):
        section.facts[key] = free = shutil.disk_usage(folder).free
        if free < _SCARCE:
            section.wrong(f"only {free / _SCARCE:.2f} GiB are free in {folder}", f"du -xh {folder} | sort -h | tail")
    return section


def cpu_threads() -> int:
    """Return how many hardware threads this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
