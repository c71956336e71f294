"""Waiting until files are on disk."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self


def sync(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until everything below a directory, and the directory itself, is on disk."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


class BackgroundSync:
    """Sends finished files to the disk while the next ones are written; a context manager that waits for all of them.

    Without it, the disk idles while files are copied into the page cache, and the copying idles while they are written.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="anyblock-sync")
        self._pending: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def submit(self, path: Path) -> None:
        """Start to send a finished file to the disk; may be called from several threads.

        Raises:
            OSError: an earlier file could not be written.
        """
        for done in [future for future in self._pending if future.done()]:
            done.result()
        self._pending.append(self._thread.submit(sync, path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()
