"""The live display of long work: one block that changes in place and ends as a short table."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from anyblock_terminal.recipe import size
from anyblock_terminal.state import Event, RunState, Stage, Task, amount, duration

_ABOVE: Final = 8
"""Lines of a terminal that the list of stages leaves to what stands below it."""


class Display:
    """Shows events on a terminal.

    Args:
        console: the terminal.
        clock: seconds since 1970, against which times are measured.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.time) -> None:
        self.console = console
        self.state = RunState()
        self._clock = clock
        self._live: Live | None = None

    def __call__(self, event: Event) -> None:
        """Take one event into account."""
        tasks = dict(self.state.tasks)
        self.state.add(event)
        kind = event.get("event")
        if kind == "note":
            self.console.print(event["text"], markup=False, highlight=False)
        elif kind == "end":
            self.close()
            self.console.print(outcome(self.state))
        elif self.state.began is None and kind == "finished" and not self.state.tasks:
            self.close()
            if event.get("whole", True) and event["task"] in tasks:
                self.console.print(_finished(tasks[event["task"]], event), markup=False, highlight=False)
        elif kind in ("run", "task") and self._live is None:
            self._live = Live(get_renderable=self.render, console=self.console, transient=True, refresh_per_second=4)
            self._live.start()

    def close(self) -> None:
        """Take the live block away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def render(self) -> RenderableType:
        """Return the block as it is now."""
        now = self._clock()
        parts: list[RenderableType] = []
        stages = list(self.state.stages)
        if stages:
            parts.append(stage_table(stages, now, most=max(3, self.console.height - _ABOVE - len(self.state.tasks))))
        if tasks := list(self.state.tasks.values()):
            parts.append(_task_table(tasks, now))
        if self.state.began is not None:
            so_far = f"{duration(max(0.0, now - self.state.began))} so far"
            parts.append(Text(so_far + left_text(self.state, now), style="dim"))
        return Group(*parts)


def left_text(state: RunState, now: float) -> str:
    """Say how long the whole run has left, after a comma; "" where there is no estimate."""
    found = None if state.whole is None else state.whole.estimate()
    if found is None:
        return ""
    left, most = (max(0.0, seconds - (now - state.time)) for seconds in found)
    if round(most) == 0:
        return ", ending"
    open_rounds = f", at most {duration(most)} if all rounds of refinement are needed" if most > 1.05 * left else ""
    return f", about {duration(left)} left{open_rounds}"


def outcome(state: RunState) -> RenderableType:
    """Return the table in which a run ends, and in words how it ended where it did not reach its end."""
    table = stage_table(state.stages, state.time)
    table.title, table.title_justify = "Stages", "left"
    whole = state.time - (state.began or state.time)
    words = {"done": f"done in {duration(whole)}", "stopped": f"stopped after {duration(whole)}"}
    line = Text(words.get(state.end, f"{state.end or 'not finished'} after {duration(whole)}"))
    if state.error:
        line.append(f": {state.error.splitlines()[0]}")
    return Group(table, line)


def stage_table(stages: list[Stage], now: float, most: int | None = None) -> Table:
    """Return stages as a table: what each did, time, peak memory, and the KL after it where it measured one.

    Args:
        stages: in their order.
        now: seconds since 1970.
        most: rows; the last ones are shown.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    table.add_column("what it did", overflow="fold")
    for heading in ("time", "memory", "KL after it"):
        table.add_column(heading, justify="right")
    hidden = 0 if most is None else max(0, len(stages) - most)
    if hidden:
        table.add_row(f"({hidden} before)", "", "", "", "", style="dim")
    for stage in stages[hidden:]:
        seconds = now - stage.began if stage.state == "started" else stage.seconds
        table.add_row(
            stage.name.rpartition(":")[2],
            f"kept from before{stage.did and ', '}{stage.did}" if stage.state == "reused" else stage.did,
            "" if seconds is None else duration(max(0.0, seconds)),
            "" if stage.memory is None else size(stage.memory),
            "" if stage.kl is None else f"{stage.kl:.4f} ({stage.text})",
            style={"started": "bold", "reused": "dim"}.get(stage.state, ""),
        )
    return table


def _task_table(tasks: list[Task], now: float) -> Table:
    table = Table.grid(padding=(0, 1))
    for task in tasks:
        left = "" if task.left is None else f"{duration(max(0.0, task.left - (now - task.time)))} left"
        rate = f"{amount(task.rate, task.unit)}/s" if task.rate else ""
        share = task.done / task.total if task.total else 1.0
        table.add_row(
            Text(task.what),
            ProgressBar(total=max(1, task.total), completed=task.done, width=30),
            f"{share:.0%}",
            rate,
            left,
        )
    return table


def _finished(task: Task, event: Event) -> str:
    rate = f", {amount(event['rate'], task.unit)}/s" if event["rate"] else ""
    return f"{task.what}: done in {duration(event['seconds'])}{rate}"
