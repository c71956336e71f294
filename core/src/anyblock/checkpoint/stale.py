"""Temporaries of writers: how they are named and locked, and how those of dead processes are found.

A writer holds a lock (`flock`) on its temporary, which the kernel releases when the process dies however it dies.
Creating and collecting happen under a lock on the parent folder, so a temporary that is not locked is not about to
be. Where the file system has no such locks, the process id in the name decides.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_name(name: str, kind: str = "tmp") -> str:
    """Return a fresh name for a temporary beside `name`."""
    return f".{name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}"


@contextmanager
def parent_lock(parent: Path) -> Iterator[None]:
    """Hold the lock on a folder in which temporaries are created and collected."""
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock(path: Path) -> int:
    """Lock a temporary and return the descriptor whose closing releases it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def collect(target: Path) -> None:
    """Remove what dead writers of `target` left; call it under `parent_lock`.

    A previous output that was moved away by a writer that died before it could move the new one in is put back.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(tmp|old)-(\d+)-[0-9a-f]{{8}}")
    for entry in sorted(target.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if match is None or not _is_dead(entry, int(match[2])):
            continue
        if match[1] == "old" and not os.path.lexists(target):
            entry.rename(target)
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_dead(path: Path, pid: int) -> bool:
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
    return held or not _is_running(pid)


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
