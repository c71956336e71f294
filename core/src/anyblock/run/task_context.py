"""What a stage's tasks compute with: the same in the run's own process and in any other that sees the run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.calibration.batches import Batches
from anyblock.contract.executor import Task
from anyblock.execution.environment import distributions, task_threads
from anyblock.execution.folder import TaskFolder
from anyblock.execution.run import run_tasks
from anyblock.family import is_inferring
from anyblock.plugins.blame import blaming
from anyblock.run.context import RunContext

if TYPE_CHECKING:
    from anyblock.candidates.sources import Orders
    from anyblock.modeling.spool import Spool

_INPUT_STAGES: Final = ("data", "importance", "hidden-size")


@dataclass
class TaskContext:
    """What the tasks of one stage compute with.

    Attributes:
        context: the run.
        orders: how units are sorted.
        batches: the text.
        spool: where hidden states are kept.
        shared: JSON data that the stage gave all of its tasks.
        kept: whatever a task leaves for those after it in this process; it changes no result.
    """

    context: RunContext
    orders: Orders
    batches: Batches
    spool: Spool
    shared: Mapping[str, Any]
    kept: dict[str, Any] = field(default_factory=dict)


def compute(
    work: TaskContext, stage: Path, kind: str, text: str, wanted: Iterable[tuple[str, Mapping[str, Any]]]
) -> Iterator[tuple[Task, Any]]:
    """Compute tasks with the run's executor, and yield each with its result as it comes; those computed before come first.

    Args:
        work: what they compute with, in this process.
        stage: the stage's folder.
        kind: of all of them, see `anyblock.pipeline.run_task`.
        text: which part of the run's text `work.batches` is.
        wanted: title and arguments of each.

    Raises:
        ExecutionError: tasks failed for good; all others are computed.
    """
    context = work.context
    name = context.config.execution.engine
    folder = TaskFolder(stage / ".tasks")
    tasks = folder.prepare(_plan(context, folder.path, text, work.shared), kind, wanted)
    origin = context.family.origins("executors")[name]
    with folder.holding(work), blaming(origin, f"the executor {name!r}", type(context.executor), inside=True):
        for task, result in run_tasks(context.executor, folder, tasks):
            yield task, json.loads(result)


def _plan(context: RunContext, folder: Path, text: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every task depends on besides its arguments, as JSON data from which another process opens it."""
    run = context.run
    stages = [stage for stage in _INPUT_STAGES if run.is_finished(stage)]
    models = {"teacher": context.teacher.checkpoint, "reference": context.reference.checkpoint}
    return {
        "run": os.path.relpath(run.path, folder),
        "models": {
            name: {"path": _place(checkpoint.path, run.path), "fingerprint": checkpoint.fingerprint()}
            for name, checkpoint in models.items()
        },
        "files": {stage: run.done(stage)["files"] for stage in stages},
        "text": text,
        "batch_size": context.config.data.batch_size,
        "device": context.teacher.device.type,
        "dtype": str(context.teacher.dtype).removeprefix("torch."),
        "threads": task_threads(context.config.execution),
        "distributions": distributions(context.family),
        "infer": is_inferring(),
        "shared": shared,
    }


def _place(path: Path, run: Path) -> str:
    """Return a path that is relative to the run folder where it lies in it."""
    real, base = path.resolve(), run.resolve()
    return str(real.relative_to(base) if real.is_relative_to(base) else real)
