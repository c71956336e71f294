"""How long work reports where it stands, without depending on a terminal.

Stages call `Progress.task`; the command line passes a `rich` implementation, and a library caller gets `SILENT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

Advance = Callable[[int], None]
"""Tells that so many more units are done."""


class Progress(Protocol):
    """Where stages report to."""

    def task(self, description: str, *, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Open a task of `total` units (`bytes`, `tokens`, `candidates` ...); its rate and ETA are in that unit."""
        ...

    def note(self, message: str) -> None:
        """Show one line that stays: what was skipped, chosen or found."""
        ...


class _Silent:
    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator[Advance]:
        yield lambda _: None

    def note(self, message: str) -> None:
        pass


SILENT: Final[Progress] = _Silent()
"""Reports nothing."""
