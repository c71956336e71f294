"""The machine: memory, processor threads and free disk space, from the operating system alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from anyblock.doctor.finding import Section

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUPS: Final = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
_SCARCE: Final = 1 << 30


def examine_machine() -> Section:
    """Look at memory, threads and disk; sizes are in bytes. Less than 1 GiB of free disk is a fault."""
    section = Section("Machine")
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


def memory() -> tuple[int | None, int | None]:
    """Return total and available memory in bytes, within the container's limit if it has one; None if unknown."""
    total, available = _host_memory()
    for limit_file, usage_file in _CGROUPS:
        limit, usage = _number(limit_file), _number(usage_file)
        if limit is not None and usage is not None and (total is None or limit < total):
            left = max(limit - usage, 0)
            total, available = limit, left if available is None else min(available, left)
            break
    return total, available


def cpu_threads() -> int:
    """Return how many hardware threads this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _host_memory() -> tuple[int | None, int | None]:
    if _MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines() if ":" in line)
        found = [_kibibytes(lines.get(key)) for key in ("MemTotal", "MemAvailable")]
        return found[0], found[1]
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (AttributeError, ValueError, OSError):
        return None, None


def _kibibytes(text: str | None) -> int | None:
    return int(text.split()[0]) * 1024 if text else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        # No such control group, or the word "max": no limit.
        return None
