"""Progress on standard error: now and then a plain line, or what an extension shows on a terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

from rich.console import Console

from anyblock.plugins.commands import installed_entries
from anyblock.progress import Event, Events
from anyblock.report import format as fmt

_SECONDS_BETWEEN_LINES: Final = 30.0
DISPLAYS_GROUP: Final = "anyblock.displays"
"""Entry points of functions that take rich's `Console`, of a terminal, and return what gets the events to show there."""


def rate_text(per_second: float, unit: str) -> str:
    """Return a rate in its unit: `1,234 tokens/s`, `334 MiB/s`, `0.250 candidates/s`."""
    return f"{fmt.size(per_second)}/s" if unit == "bytes" else f"{fmt.number(per_second, 3)} {unit}/s"


def terminal_progress(console: Console | None = None) -> Events:
    """Return where a command reports: an extension's display on a terminal, where one is installed; else plain lines.

    Args:
        console: None for standard error; standard output is never written to.
    """
    console = console or Console(file=sys.stderr)
    for name, entry in installed_entries(DISPLAYS_GROUP).items() if console.is_terminal else ():
        with suppress(Exception):  # a broken extension costs only itself
            return Events(entry.load()(console))
        console.print(f"the display {name!r} cannot be loaded, so there are plain lines", markup=False, highlight=False)
    return Events(PlainLines(console))


class PlainLines:
    """Prints a line when a task starts taking long, every half minute after that, and at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[int, Event] = {}

    def __call__(self, event: Event) -> None:
        """Print what there is to say about an event."""
        if (kind := event["event"]) == "note":
            self._print(event["text"])
        elif kind == "task":
            self._tasks[event["task"]] = event | {"next": _SECONDS_BETWEEN_LINES}
        elif kind in ("progress", "finished"):
            task, seconds = self._tasks[event["task"]], event["seconds"]
            what, rate = task["what"], f", {rate_text(event['rate'], task['unit'])}" if event["rate"] else ""
            if event.get("whole"):
                self._print(f"{what}: done in {seconds:.1f} s{rate}")
            elif kind == "progress" and event["done"] < task["total"] and seconds >= task["next"]:
                task["next"], share = seconds + _SECONDS_BETWEEN_LINES, f"{100 * event['done'] / task['total']:.0f} %"
                left = "" if event["left"] is None else f", {event['left']:.0f} s left"
                self._print(f"{what}: {share}{rate}{left}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
