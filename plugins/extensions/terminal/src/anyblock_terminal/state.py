"""What a run is doing, put together from its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyblock_terminal.estimate import Whole

Event = Mapping[str, Any]


@dataclass
class Task:
    """Work that is open.

    Attributes:
        what, total, unit: as the stage opened it.
        done: units so far.
        rate: units per second; 0 before there is one.
        left: seconds to the end at this rate, when the event was written; None without a rate.
        time: when that was, in seconds since 1970.
    """

    what: str
    total: int
    unit: str
    done: int = 0
    rate: float = 0.0
    left: float | None = None
    time: float = 0.0


@dataclass
class Stage:
    """A stage of a run.

    Attributes:
        name: for instance `scores`, or `adaptations:repair`.
        state: `started`, `done` or `reused`.
        began: when it was started, in seconds since 1970.
        seconds: what it took; None while it is open, and for one that another process finished before events were kept.
        memory: peak memory of the process in bytes; None where the system does not tell.
        kl: KL(teacher || child) in nats per token that it measured; None where it measures none.
        text: on which text that is.
        did: its longest task, in words.
    """

    name: str
    state: str
    began: float
    seconds: float | None = None
    memory: int | None = None
    kl: float | None = None
    text: str = ""
    did: str = ""
    longest: float = -1.0


@dataclass
class RunState:
    """A run as its events tell it, or any other work that reports in the same way.

    Attributes:
        began: when the process that works on it started, in seconds since 1970; None outside a run.
        pid: that process.
        stages: in the order in which this process asked for them.
        tasks: open ones by number.
        end: how it ended: `done`, `stopped` or `failed`; "" while it works.
        error: why it failed.
        time: when the last event was written.
        folder: the run folder; None for that which the events name.
        whole: how far its end can be seen; None outside a run.
    """

    began: float | None = None
    pid: int | None = None
    stages: list[Stage] = field(default_factory=list)
    tasks: dict[int, Task] = field(default_factory=dict)
    end: str = ""
    error: str = ""
    time: float = 0.0
    folder: Path | None = None
    whole: Whole | None = None
    _known: dict[str, Stage] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take one event into account; one of an unknown kind, from a later version, changes nothing."""
        self.time = float(event.get("time", self.time))
        handler = getattr(self, f"_{event.get('event')}", None)
        if handler is not None:
            handler(event)
        if self.whole is not None:
            self.whole.add(event)

    def _run(self, event: Event) -> None:
        folder = self.folder or event.get("folder")
        self.whole = None if folder is None else Whole(Path(folder))
        self.began, self.pid, self.end, self.error = self.time, event.get("pid"), "", ""
        self.stages, self.tasks = [], {}

    def _end(self, event: Event) -> None:
        self.end, self.error = str(event["state"]), str(event.get("error", ""))
        self.tasks = {}

    def _stage(self, event: Event) -> None:
        name, state = str(event["stage"]), str(event["state"])
        if state == "done" and self.stages and self.stages[-1].name == name:
            stage = self.stages[-1]
            stage.state, stage.seconds, stage.memory = state, event.get("seconds"), event.get("memory")
            stage.kl, stage.text = event.get("kl"), str(event.get("text", ""))
            self._known[name] = stage
        elif state == "reused":
            known = self._known.get(name, Stage(name, state, self.time))
            self.stages.append(
                Stage(name, state, self.time, known.seconds, known.memory, known.kl, known.text, known.did)
            )
        else:
            self.stages.append(Stage(name, state, self.time))

    def _task(self, event: Event) -> None:
        self.tasks[event["task"]] = Task(event["what"], event["total"], event["unit"], time=self.time)

    def _progress(self, event: Event) -> None:
        task = self.tasks.get(event["task"])
        if task is not None:
            task.done, task.rate, task.left, task.time = event["done"], event["rate"], event["left"], self.time

    def _finished(self, event: Event) -> None:
        task = self.tasks.pop(event["task"], None)
        stage = self.stages[-1] if self.stages else None
        if task is None or stage is None or stage.state != "started" or event["seconds"] <= stage.longest:
            return
        stage.longest = event["seconds"]
        stage.did = task.what if task.total == 1 else f"{task.what}: {amount(event['done'], task.unit)}"


def amount(value: float, unit: str) -> str:
    """Return an amount in its unit: `24 candidates`, `1.2 MB`, `32.8k tokens`."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            short = f"{value / (1e3 if suffix == 'k' else size):.3g}"
            return f"{short} {suffix}B" if unit == "bytes" else f"{short}{suffix} {unit}"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def duration(seconds: float) -> str:
    """Return a duration: `1:02:03`, `2:03`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
