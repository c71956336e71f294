"""Copying byte ranges between files, inside the kernel where it can, so that memory stays flat."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from anyblock.checkpoint.files import open_regular
from anyblock.checkpoint.header import Stamp
from anyblock.errors import CheckpointError
from anyblock.progress import Advance

CHUNK: Final = 32 << 20
"""Most bytes copied between two reports of progress."""
STRIDE: Final = 64 << 10
"""The kernel copies in steps of 16 pages. Where source and target lie alike on them, that is fast, and on btrfs and XFS
blocks can be shared."""
_BUFFER: Final = 256 << 10
_UNSUPPORTED: Final = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EPERM,
    errno.EBADF,
    errno.ENOTSOCK,
}
Step = Callable[[int, int, int, int, int], int]
"""Copies up to `length` bytes: `(source, target, source offset, target offset, length) -> copied`."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes `start` to `end` of a file."""

    source: Path
    start: int
    end: int


def merged(ranges: Iterable[ByteRange]) -> Iterator[ByteRange]:
    """Join neighbours that follow one another in the same file; empty ranges vanish."""
    last: ByteRange | None = None
    for current in ranges:
        if current.start == current.end:
            continue
        if last is not None and last.source == current.source and last.end == current.start:
            last = ByteRange(last.source, last.start, current.end)
            continue
        if last is not None:
            yield last
        last = current
    if last is not None:
        yield last


def _copy_file_range(source: int, target: int, start: int, position: int, length: int) -> int:
    return os.copy_file_range(source, target, length, start, position)


def _sendfile(source: int, target: int, start: int, position: int, length: int) -> int:
    os.lseek(target, position, os.SEEK_SET)
    return os.sendfile(target, source, start, length)


def _read_write(source: int, target: int, start: int, position: int, length: int) -> int:
    return write_all(os.pread(source, min(length, _BUFFER), start), target, position) - position


def write_all(data: bytes | memoryview, target: int, position: int) -> int:
    """Write data into an open file at `position`, and return the position after it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view[:CHUNK], position)
        view, position = view[written:], position + written
    return position


def kernel_steps() -> tuple[Step, ...]:
    """Return the ways to copy inside the kernel that this platform has, best first."""
    return (
        *((_copy_file_range,) if hasattr(os, "copy_file_range") else ()),
        *((_sendfile,) if hasattr(os, "sendfile") else ()),
    )


def _portion(start: int, position: int, length: int) -> tuple[int, bool]:
    """Return how many bytes go next, and whether they are whole strides in both files."""
    if (start - position) % STRIDE:
        return length, False
    if before := -start % STRIDE:
        return min(before, length), False
    whole = length - length % STRIDE
    return (whole, True) if whole else (length, False)


class Copier:
    """Copies ranges out of files that must not change meanwhile; a context manager that keeps the sources open.

    Args:
        stamps: the state in which each source was checked; a source that is not listed is stamped when it is opened.
        advance: called with the bytes as they are copied.
        steps: the ways to copy whole strides, tried in order; one that the file system refuses is not tried again.
            Then, and where the ranges do not lie alike on the strides (which makes copying in the kernel slower),
            bytes are read and written through a small buffer.
    """

    def __init__(
        self, stamps: Mapping[Path, Stamp], advance: Advance, *, steps: tuple[Step, ...] | None = None
    ) -> None:
        self._stamps = dict(stamps)
        self._advance = advance
        self._steps = list(kernel_steps() if steps is None else steps)
        self._open: dict[Path, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                for path, descriptor in self._open.items():
                    self._check_unchanged(path, descriptor)

    def copy(self, ranges: Iterable[ByteRange], target: int, position: int) -> int:
        """Copy the ranges one after the other into the open file `target`, from `position` on.

        Returns:
            The position after the last byte.

        Raises:
            CheckpointError: a source is missing, was changed since it was checked, or is shorter than its range.
            OSError: the target cannot be written.
        """
        for part in merged(ranges):
            source = self._descriptor(part.source)
            start = part.start
            while start < part.end:
                done = self._step(part.source, source, target, start, position, min(CHUNK, part.end - start))
                self._advance(done)
                start += done
                position += done
        return position

    def put(self, data: memoryview, target: int, position: int) -> int:
        """Write data that is in memory, and return the position after it.

        Raises:
            OSError: the target cannot be written.
        """
        end = write_all(data, target, position)
        self._advance(end - position)
        return end

    def _step(self, path: Path, source: int, target: int, start: int, position: int, length: int) -> int:
        """Copy some bytes of a range and return how many."""
        length, in_kernel = _portion(start, position, length)
        while in_kernel and self._steps:
            try:
                if done := self._steps[0](source, target, start, position, length):
                    return done
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            del self._steps[0]  # refused; some file systems answer 0 instead
        done = _read_write(source, target, start, position, length)
        if not done:
            raise CheckpointError(f"{path} became shorter while it was being copied: it ends at byte {start:,}")
        return done

    def _descriptor(self, path: Path) -> int:
        if path not in self._open:
            self._open[path] = self._stack.enter_context(open_regular(path))
            self._check_unchanged(path, self._open[path])
        return self._open[path]

    def _check_unchanged(self, path: Path, descriptor: int) -> None:
        now = Stamp.of(os.fstat(descriptor))
        if self._stamps.setdefault(path, now) != now:
            raise CheckpointError(
                f"{path} was changed while it was being copied", expected="a checkpoint that no process writes to"
            )
