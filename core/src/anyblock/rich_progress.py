"""Progress on a terminal's standard error: bar, rate and ETA; now and then a plain line where it is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from anyblock.progress import Advance, Progress

if TYPE_CHECKING:
    from rich.progress import Task

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_AT_START = 0.01


def rate_text(per_second: float, unit: str) -> str:
    """Return a rate in its unit: `1.2k tokens/s`, `350 MB/s`, `0.25 candidates/s`."""
    if unit == "bytes":
        return f"{decimal(int(per_second))}/s"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if per_second >= size:
            return f"{per_second / size:.3g}{suffix} {unit}/s"
    return f"{per_second:.3g} {unit}/s"


def terminal_progress(console: Console | None = None) -> Progress:
    """Return where a command reports: a live display on a terminal, plain lines anywhere else.

    Args:
        console: None for standard error; standard output is never written to.
    """
    console = console or Console(file=sys.stderr)
    return RichProgress(console) if console.is_terminal else PlainProgress(console)


class RichProgress:
    """A live display; tasks that are open together share it.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None
        self._open = 0

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator[Advance]:
        """See `anyblock.progress.Progress.task`."""
        bars = self._start()
        task = bars.add_task(description, total=total, unit=unit)
        try:
            yield lambda units: bars.advance(task, units)
        finally:
            bars.stop_task(task)
            self._stop(bars)

    def note(self, message: str) -> None:
        """See `anyblock.progress.Progress.note`."""
        self._console.print(message, markup=False, highlight=False)

    def _start(self) -> Bars:
        if self._bars is None:
            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                _Rate(),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
            )
            self._bars.start()
        self._open += 1
        return self._bars

    def _stop(self, bars: Bars) -> None:
        self._open -= 1
        if self._open == 0:
            bars.stop()
            self._bars = None


class PlainProgress:
    """A line when a task starts taking long, every half minute after that, and at its end.

    Args:
        console: no terminal, for instance a log file.
        seconds_between_lines: how long a task runs silently.
    """

    def __init__(self, console: Console, *, seconds_between_lines: float = _SECONDS_BETWEEN_LINES) -> None:
        self._console = console
        self._between = seconds_between_lines

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator[Advance]:
        """See `anyblock.progress.Progress.task`."""
        start = shown = time.monotonic()
        done = before = 0

        def advance(units: int) -> None:
            """Count units, and show them if it is time."""
            nonlocal done, before, shown
            done += units
            now = time.monotonic()
            if now - start < _SECONDS_AT_START:
                before = done  # what an earlier run did is reported at once, and says nothing about the rate
            if now - shown >= self._between and done < total:
                shown = now
                rate = (done - before) / (now - start)
                left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
                self.note(f"{description}: {100 * done / total:.0f} %, {rate_text(rate, unit)}{left}")

        yield advance
        taken = time.monotonic() - start
        rate = f", {rate_text((done - before) / taken, unit)}" if done > before and taken > 0 else ""
        self.note(f"{description}: done in {taken:.1f} s{rate}")

    def note(self, message: str) -> None:
        """See `anyblock.progress.Progress.note`."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else rate_text(speed, task.fields["unit"]))
