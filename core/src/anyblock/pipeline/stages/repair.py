"""Stage `repair`: the weights that remain are re-fitted to make up for what was removed, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import TEACHER, Candidate
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.tensor_files import TensorFiles
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder, file_digest, read_json
from anyblock.realize.repair import RepairLine, repair

if TYPE_CHECKING:
    import torch

    from anyblock.candidates.views import Orders

STAGE = "7-repair"
_WEIGHTS = "repaired.safetensors"
_LINES = "repair.json"


def run_repair(
    context: RunContext, chosen: Sequence[Candidate], orders: Orders, batches: Batches
) -> tuple[Mapping[str, torch.Tensor], str]:
    """Return the repaired tensors by name, and what identifies them; nothing when the repair is switched off."""
    if context.config.pruning.repair.method == "none":
        return {}, "none"
    stage = context.run.stage(
        STAGE,
        {
            "teacher": context.teacher.fingerprint(),
            "chosen": [candidate.to_dict() for candidate in chosen],
            "orders": context.choices_key(orders),
            "tokens": batches.key,
            "batch_size": batches.batch_size,
            "execution": context.execution,
        },
    )
    if not stage.skipped:
        weights = context.weights(orders)
        changed = [candidate for candidate in chosen if candidate.kind != TEACHER]
        with stage.run() as folder:
            partial = folder / ".layers"
            spool = context.spool(folder)
            _, lines = repair(
                context.engine, changed, weights, batches, partial=partial, spool=spool, progress=context.progress
            )
            (folder / _WEIGHTS).unlink(missing_ok=True)
            TensorFiles(sorted(partial.glob("*.safetensors"))).join(folder / _WEIGHTS)
            write_json_atomic(folder / _LINES, [asdict(line) for line in lines])
    path = context.run.result(STAGE, _WEIGHTS)
    return TensorFiles([path]), file_digest(path)


def read_repair(run: RunFolder) -> list[RepairLine]:
    """Read what the finished stage did to each subblock."""
    return [RepairLine(**line) for line in read_json(run.result(STAGE, _LINES))]
