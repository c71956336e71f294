"""How much memory the machine leaves to this process; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def memory() -> tuple[int, int]:
    """Return total and available memory in bytes, within the limits of all control groups around this process."""
    host = psutil.virtual_memory()
    total, available = host.total, host.available
    for folder in _control_groups():
        limit = next(filter(None, (_number(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))), None)
        used = [_number(folder / name) for name in ("memory.current", "memory.usage_in_bytes")]
        usage = next((value for value in used if value is not None), None)
        if limit is None or usage is None or limit >= total:
            continue
        total, available = limit, min(available, max(limit - usage + _reclaimable(folder), 0))
    return total, available


def _control_groups() -> Iterator[Path]:
    """Yield the folders of this process's memory control group and of all that it lies in, the outermost first."""
    places = [(_CGROUPS, ""), (_CGROUPS / "memory", "")]
    if _MEMBERSHIP.exists():
        for line in _MEMBERSHIP.read_text(encoding="utf-8", errors="replace").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                places.append((_CGROUPS, path))
            elif "memory" in controllers.split(","):
                places.append((_CGROUPS / "memory", path))
    seen: set[Path] = set()
    for root, path in places:
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            folder = root.joinpath(*parts[:depth])
            if folder not in seen:
                seen.add(folder)
                yield folder


def _reclaimable(folder: Path) -> int:
    """Return the bytes of files in the group's cache that the system gives back as soon as memory is wanted."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0
    values = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(values.get("total_inactive_file") or values.get("inactive_file") or 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        # No such control group, or the word "max": no limit.
        return None
