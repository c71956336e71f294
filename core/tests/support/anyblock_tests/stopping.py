"""Runs that are stopped in the middle of their work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anyblock.progress import Advance


class Stop(BaseException):
    """As abrupt as a signal, but inside this process."""


class StopAfter:
    """A progress that stops the work after so many steps.

    Args:
        steps: how many are let through.
        task: only steps of this task count; None counts all.
    """

    def __init__(self, steps: int, task: str | None = None) -> None:
        self.left = steps
        self.name = task
        self.seen: list[str] = []

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator[Advance]:
        self.seen.append(description)

        def advance(_: int) -> None:
            if self.name in (None, description):
                self.left -= 1
            if self.left < 0:
                raise Stop

        yield advance

    def note(self, message: str) -> None:
        pass
