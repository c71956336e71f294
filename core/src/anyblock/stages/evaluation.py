"""Stage `evaluation`: the child and its teacher, on text that nothing was calibrated on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from anyblock.calibration.batches import Batches
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.evaluation.layerwise import evaluate_layerwise
from anyblock.evaluation.result import EvaluationResult
from anyblock.run.context import RunContext
from anyblock.run.run_folder import read_json

STAGE: Final = "evaluation"


def run_evaluation(context: RunContext, child: SubblockCheckpoint, batches: Batches) -> EvaluationResult | None:
    """Compare the child with the model as it was given; None when the evaluation is switched off."""
    if not context.config.evaluation.enabled:
        return None
    stage = context.run.stage(
        STAGE,
        {
            "reference": context.reference.checkpoint.fingerprint(),
            "child": child.fingerprint(),
            "tokens": batches.key,
            **({"around": asdict(batches.around)} if batches.around and batches.bos else {}),
            "execution": context.execution,
        },
    )
    if not stage.skipped:
        with stage.run() as folder:
            result = evaluate_layerwise(
                context.teacher.engine_of(child),
                batches=batches,
                teacher=context.reference.engine,
                spool=context.spool(folder),
                progress=context.progress,
            )
            stage.figures = {"kl": result.kl_per_token, "text": "evaluation text"}
            write_json_atomic(folder / "evaluation.json", result.to_dict())
    return EvaluationResult.from_dict(read_json(context.run.result(STAGE, "evaluation.json")))
