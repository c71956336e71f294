"""Stage `latency-check`: the sum over subblocks against the time of the realised child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.costs.registry import LATENCY
from anyblock.latency.additive_model import measure_subblocks
from anyblock.latency.cache import WHOLE
from anyblock.latency.replay import model_calls
from anyblock.modeling.device import describe_device
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import read_json
from anyblock.pipeline.stages.measured_costs import read_measured, wants_latency

STAGE: Final = "latency-check"
_FILE: Final = "latency.json"


@dataclass(frozen=True)
class LatencyCheck:
    """The additive model against the realised child, in ms of the scenario.

    Attributes:
        predicted: the sum over the child's subblocks, calibrated on the teacher.
        measured: the child as a whole.
        teacher_factor: the whole teacher over the sum of its parts; 1 where it was not measured.
        factor: the child over the sum of its parts, by which the additive model would have been right.
    """

    predicted: float
    measured: float
    teacher_factor: float
    factor: float

    @property
    def error(self) -> float:
        """How far the prediction is from the measurement, relatively: positive when the child is slower."""
        return self.measured / self.predicted - 1


def run_latency_check(
    context: RunContext, child: SubblockCheckpoint, predicted: Mapping[str, float]
) -> LatencyCheck | None:
    """Time the realised child as a whole and compare; None when nothing was timed, or models do not fit into memory."""
    found = read_measured(context.run, LATENCY)
    if not wants_latency(context.config) or found is None or not context.teacher.memory.whole:
        return None
    model = found[0]
    stage = context.run.stage(
        STAGE,
        {
            "child": child.fingerprint(),
            "predicted": predicted[LATENCY],
            "model": model.to_dict(),
            "execution": context.execution,
            "machine": describe_device(context.teacher.device),
        },
    )
    if not stage.skipped:
        from anyblock.modeling.load import map_model

        with stage.run() as folder:
            whole = map_model(child, context.family, device=context.teacher.device, dtype=context.teacher.dtype)
            taken = measure_subblocks(
                {WHOLE: model_calls(whole, model.scenario)},
                model.scenario,
                device=context.teacher.device,
                repeats=context.config.search.timing_rounds,
                progress=context.progress,
            ).subblocks[WHOLE]
            factor = model.factor * taken / predicted[LATENCY]
            write_json_atomic(folder / _FILE, asdict(LatencyCheck(predicted[LATENCY], taken, model.factor, factor)))
    return LatencyCheck(**read_json(context.run.result(STAGE, _FILE)))


def read_latency_check(context: RunContext) -> LatencyCheck | None:
    """Read the finished check; None when no budget asked for latency, or models do not fit into memory."""
    if not wants_latency(context.config) or not context.teacher.memory.whole:
        return None
    return LatencyCheck(**read_json(context.run.result(STAGE, _FILE)))
