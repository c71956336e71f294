"""How long work reports where it stands, without depending on a terminal.

Stages call `Progress.task`; the command line passes what shows it, and a library caller gets `SILENT`.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from anyblock.version import VERSION

Advance = Callable[[int], None]
"""Reports that so many more units are done."""
Event = dict[str, Any]
"""What happened, as plain data; core/docs/events.md has the fields."""


class Progress(Protocol):
    """Where stages report to."""

    def task(self, description: str, *, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Open a task of `total` units (`bytes`, `tokens`, `candidates` ...); its rate and ETA are in that unit."""

    def note(self, message: str) -> None:
        """Show one line that stays: what was skipped, chosen or found."""


class Events:
    """A `Progress` that turns reports into events: at most one every half second and every 1 % of a task's time.

    Args:
        sink: gets each of them.
        then: gets the same reports.
    """

    def __init__(self, sink: Callable[[Event], None] = lambda _: None, then: Progress | None = None) -> None:
        self._sink, self._then, self._numbers = sink, then, itertools.count(1)

    def emit(self, event: str, **data: Any) -> None:
        """Hand an event that is not one of a task to the sink, and to that of `then`."""
        if isinstance(self._then, Events):
            self._then.emit(event, **data)
        self._send(event, **data)

    def _send(self, event: str, **data: Any) -> None:
        self._sink({"time": time.time(), "event": event, **data})

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator[Advance]:
        """See `Progress.task`."""
        number, done, before, start, shown = next(self._numbers), 0, 0, time.monotonic(), 0.0

        def state() -> Event:
            """Return where the task stands."""
            seconds = time.monotonic() - start
            rate = (done - before) / seconds if done > before and seconds > 0 else 0.0
            left = (total - done) / rate if rate > 0 else None
            return {"task": number, "done": done, "seconds": seconds, "rate": rate, "left": left}

        def advance(units: int) -> None:
            """Count units, and say where the task stands if it is time."""
            nonlocal done, before, shown
            also(units)
            done += units
            seconds = time.monotonic() - start
            if seconds < 0.01:
                before = done  # what an earlier run did is reported at once, and says nothing about the rate
            if seconds - shown >= max(0.5, seconds / 100):
                shown = seconds
                self._send("progress", **state())

        given: dict[str, Any] = {"total": total, "unit": unit}
        self._send("task", task=number, what=description, **given)
        whole = False
        try:
            with self._then.task(description, **given) if self._then else nullcontext(lambda _: None) as also:
                yield advance
            whole = True
        finally:
            self._send("finished", whole=whole, **state())

    def note(self, message: str) -> None:
        """See `Progress.note`."""
        if self._then is not None:
            self._then.note(message)
        self._send("note", text=message)


SILENT: Final = Events()
"""Reports nothing."""


@contextmanager
def recorded(path: Path, shown: Progress, more: Callable[[Event], Event] = lambda _: {}) -> Iterator[Events]:
    """Return a progress that appends every event to a file, also that the run begins and how it ends, and passes it on.

    Args:
        path: the file; its last line may be torn, where an earlier process was killed.
        shown: where the run reports as well.
        more: returns what else the file says of an event; whatever it raises costs only that.
    """
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read() == b"\n" else b"\n")

        def append(event: Event) -> None:
            """Write one line."""
            with suppress(Exception):
                event |= more(event)
            plain = {key: round(value, 4) if isinstance(value, float) else value for key, value in event.items()}
            file.write(json.dumps(plain).encode() + b"\n")
            file.flush()

        events = Events(append, shown)
        events.emit("run", version=VERSION, pid=os.getpid(), folder=str(path.parent.resolve()))
        try:
            yield events
        except BaseException as error:
            failed = isinstance(error, Exception)
            events.emit("end", state="failed" if failed else "stopped", error=str(error) if failed else "")
            raise
        events.emit("end", state="done")
