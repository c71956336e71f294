"""`anyblock watch`: what a run does, from its events."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer
from anyblock.errors import InputError

from anyblock_terminal.run_app import run_app

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
EVENTS: Final = "events.jsonl"
_BETWEEN: Final = 0.25
_GONE_AFTER: Final = 2.0
"""Seconds without an event after which it is looked up whether the process still exists."""


class EventFile:
    """Reads a run's events as they are appended. A line that is not finished yet waits; one that was torn is left out.

    Args:
        file: opened for reading bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield what was appended since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


@_APP.command()
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder of `anyblock compress`, OUT.run.")],
) -> None:
    """Show what a run does while it does it, or what it did. Ends when the run does.

    Exits with 0 when the run is done, and with 1 when it failed, was stopped or its process is gone.
    """
    from rich.console import Console

    from anyblock_terminal.display import Display, outcome
    from anyblock_terminal.state import RunState

    path = run.expanduser() / EVENTS
    if not path.is_file():
        raise InputError(
            f"{run} has no {EVENTS}",
            expected="a run folder of `anyblock compress` (OUT.run)",
            hint="a run writes it as soon as it has checked its input; runs of earlier versions have none",
        )
    console = Console()
    state = RunState(folder=path.parent)
    live = console.is_terminal
    with path.open("rb") as file:
        source = EventFile(file)
        past = list(source.new())
        last = max((number for number, event in enumerate(past) if event.get("event") == "run"), default=0)
        for event in past[:last]:
            state.add(event)
        display: Any = None
        if live:
            display = Display(console)
            display.state = state
        show: Callable[[dict[str, Any]], None] = display or _Lines(state, console)
        try:
            for event in past[last:]:
                show(event)
            while not state.end and not _gone(run, state):
                time.sleep(_BETWEEN)
                for event in source.new():
                    show(event)
        finally:
            if live:
                display.close()
    if not state.end:
        console.print(outcome(state))
        console.print("its process is gone; the same command of `anyblock compress` continues it", highlight=False)
    elif not live:
        console.print(outcome(state))
    if state.end != "done":
        raise typer.Exit(1)


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    return run_app(_APP, "watch", arguments)


class _Lines:
    """Plain lines, where there is no terminal: notes, and every finished stage."""

    def __init__(self, state: Any, console: Any) -> None:
        self._state, self._console = state, console

    def __call__(self, event: dict[str, Any]) -> None:
        self._state.add(event)
        text = event.get("text") if event.get("event") == "note" else None
        if event.get("event") == "stage" and event.get("state") != "started":
            stage = self._state.stages[-1]
            text = f"{stage.name.rpartition(':')[2]}: {stage.state}{stage.did and ', '}{stage.did}"
        if text:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _gone(run: Path, state: Any) -> bool:
    """Return whether the run's process was killed: it is of this machine, and does not exist any more."""
    if time.time() - state.time < _GONE_AFTER:
        return False
    try:
        holder = json.loads((run.expanduser() / ".holder.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # a run that ends takes this note away, and says before how it ended
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
