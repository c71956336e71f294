"""Temporaries of writers: how they are named and locked, and how those of dead processes are found.

A writer holds a lock (`flock`) on its temporary, which the kernel releases when the process dies, however it dies. A temporary
gets the name by which it can be collected only when it is locked. Where the file system has no such locks, the process id
in the name decides. POSIX systems only: this module imports `fcntl`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def temporary_name(name: str, kind: str = "tmp") -> str:
    """Return a fresh name for a temporary next to `name`: it says which process made it, and in which second."""
    return f".{name}.{kind}-{os.getpid()}-{int(time.time()):08x}{os.urandom(4).hex()}"


def claim(target: Path, make: Callable[[Path], object]) -> tuple[Path, int]:
    """Create a temporary next to `target`, locked from the moment at which others see it.

    Args:
        target: what the temporary will become.
        make: creates it: `Path.mkdir`, or a function that creates a file.

    Returns:
        The temporary, and the descriptor whose closing releases it.
    """
    fresh = target.with_name(temporary_name(target.name, "new"))
    make(fresh)
    descriptor = lock(fresh, wait=True)  # another writer may be looking whether its owner is dead
    return fresh.rename(target.with_name(temporary_name(target.name))), descriptor


def lock(path: Path, *, wait: bool = False) -> int:
    """Lock a file or directory and return the descriptor whose closing releases it.

    Raises:
        BlockingIOError: it is locked already, and `wait` is false.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove_leftovers(target: Path) -> None:
    """Remove what dead writers of `target` left.

    A previous output that was moved away by a writer that died before it could move the new one in is put back.
    """
    for entry, match in _temporaries(target):
        if not _is_dead(entry, match[1], int(match[2])):
            continue
        with suppress(OSError):  # another process collects as well, or the remains are someone else's
            if match[1] == "old" and not os.path.lexists(target):
                entry.rename(target)
            elif entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()


def writer_of(target: Path) -> str | None:
    """Return who is writing `target` now, as `process 12, for 3.4 minutes`; None when no process is."""
    with suppress(OSError):  # a folder that cannot be listed is refused where it is written to
        for entry, match in _temporaries(target):
            if match[1] == "tmp" and not _is_dead(entry, match[1], int(match[2])):
                return f"process {match[2]}, for {max(0.0, time.time() - int(match[3], 16)) / 60:.1f} minutes"
    return None


def _temporaries(target: Path) -> list[tuple[Path, re.Match[str]]]:
    """Return the temporaries next to `target` with their names' parts: kind, process, second in hexadecimal digits."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(new|tmp|old)-(\d+)-([0-9a-f]{{8}})[0-9a-f]{{8}}")
    found = [(entry, pattern.fullmatch(entry.name)) for entry in sorted(target.parent.iterdir())]
    return [(entry, match) for entry, match in found if match is not None]


def _is_dead(path: Path, kind: str, pid: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        held = _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return (held and kind != "new") or not _is_running(pid)


def _flock(descriptor: int, operation: int) -> bool:
    """Take a lock; return False where the file system has none."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.ENOSYS):
            return False
        raise
    return True


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
