"""The one place where a task is computed, in whatever process it is."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from anyblock.calibration.batches import Batches
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config.load import load_config
from anyblock.contract.executor import Task
from anyblock.contract.trust import trusting
from anyblock.errors import InputError
from anyblock.execution.environment import other_distributions
from anyblock.execution.folder import SHARED, TaskFolder, worker_name
from anyblock.family import inferring_families
from anyblock.progress import SILENT
from anyblock.run.context import RunContext, RunModel
from anyblock.run.model_source import read_source
from anyblock.run.run_folder import RunFolder, file_digest
from anyblock.run.task_context import TaskContext
from anyblock.stages.data import read_batches
from anyblock.stages.importance import hook_plans, learn, read_orders
from anyblock.stages.narrow_teacher import read_channels
from anyblock.stages.scores import KIND as SCORES
from anyblock.stages.scores import score_layer

TASK_KINDS: Final[Mapping[str, Callable[[TaskContext, Mapping[str, Any]], Any]]] = {SCORES: score_layer}
"""What computes a task, by its kind: from what its stage shares and its own arguments to a JSON result."""
_opened: dict[tuple[Path, str], TaskContext] = {}
"""What this process computed its last task with, by folder and plan; one at a time, since it holds models."""


def run_task(path: Path, name: str) -> None:
    """Compute a task and keep its result; see `anyblock.contract.services.Services.run_task`."""
    folder = TaskFolder(path)
    task = folder.task(name)
    if folder.result(task) is not None:
        return
    begin = time.monotonic()
    try:
        plan = folder.plan(task)
        with _threads(int(plan["threads"])):
            opened = _context(folder, task, plan)
            with trusting(opened.context.config.trust_remote_code):
                result = TASK_KINDS[task.kind](opened, task.arguments)
        folder.finish(task, json.dumps(result, allow_nan=False).encode(), time.monotonic() - begin)
    except Exception:
        with suppress(OSError), folder.log(task).open("a", encoding="utf-8") as log:
            log.write(f"{task.title}, {worker_name()}:\n{traceback.format_exc()}\n")
        raise


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _context(folder: TaskFolder, task: Task, plan: Mapping[str, Any]) -> TaskContext:
    if folder.held is not None:
        own: TaskContext = folder.held
        return own
    key = (folder.path.resolve(), task.plan)
    if key not in _opened:
        _opened.clear()
        if different := other_distributions(plan["distributions"]):
            raise InputError(
                f"{worker_name()} cannot compute for this run: {'; '.join(different)}",
                hint="install the same distributions on every worker as where the run is started",
            )
        infer = inferring_families(lambda _: None) if plan["infer"] else nullcontext()
        with infer as scope:
            if scope is not None:
                reference = Path(folder.path / plan["run"] / plan["models"]["reference"]["path"])
                scope.models[str(SubblockCheckpoint.open(reference).config["model_type"])] = str(reference)
            _opened[key] = _open(folder, plan)
    return _opened[key]


def _open(folder: TaskFolder, plan: Mapping[str, Any]) -> TaskContext:
    """Open what a run's tasks compute with from its folder.

    Raises:
        InputError: a file is not there, or not the one that the run has.
    """
    run = RunFolder.open((folder.path / plan["run"]).resolve())
    for stage, files in plan["files"].items():
        for name, wanted in files.items():
            file = run.folder(stage) / name
            if not file.is_file() or file_digest(file) != wanted:
                raise InputError(f"{worker_name()}: {file} is not the file that the run has", hint=SHARED)
    config = load_config(run.path / "run.yaml").model_copy(update={key: plan[key] for key in ("device", "dtype")})
    models = {}
    for name, model in plan["models"].items():
        place = run.path / model["path"]  # an absolute path stays what it is
        checkpoint = SubblockCheckpoint.open(place)
        if checkpoint.fingerprint(cache=folder.path / "fingerprints.json") != model["fingerprint"]:
            raise InputError(f"{worker_name()}: {place} is not the model that the run has", hint=SHARED)
        with trusting(config.trust_remote_code):
            source = read_source(place)
        models[name] = RunModel(config, source, checkpoint, SILENT)
    given = models["reference"]
    context = RunContext(config, run, SILENT, given, given)
    orders = read_orders(run, hook_plans(config, given.source))
    if plan["models"]["teacher"] != plan["models"]["reference"]:
        context.teacher = models["teacher"]
        context.teacher.channels = read_channels(run)
    learn(context)
    batches: Batches = read_batches(run, int(plan["batch_size"]))[plan["text"]]
    own = "".join(letter if letter.isalnum() else "-" for letter in worker_name())
    spool = context.teacher.memory.spool(folder.path.parent / f".spool-{own}")
    return TaskContext(context, orders, batches, spool, plan["shared"])
