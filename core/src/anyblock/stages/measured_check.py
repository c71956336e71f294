"""Stages `measured-check:NAME`: the sum over subblocks against the realised child as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.measuring.replay import model_calls
from anyblock.measuring.shape_times import WHOLE
from anyblock.modeling.device import describe_device
from anyblock.run.context import RunContext
from anyblock.run.run_folder import read_json
from anyblock.stages.measured_costs import cost_named, measured_bounds, read_measured

_STAGE: Final = "measured-check:{name}"
_FILE: Final = "check.json"


@dataclass(frozen=True)
class MeasuredCheck:
    """The additive model against the realised child, in the cost's unit.

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
        """How far the prediction is from the measurement, relatively: positive when the child costs more."""
        return self.measured / self.predicted - 1


def run_measured_checks(context: RunContext, child: SubblockCheckpoint, predicted: Mapping[str, float]) -> None:
    """Measure the realised child as a whole where a budget bounds a measured cost and models fit into memory."""
    for name in _checked(context):
        _check(context, child, name, predicted[name])


def read_measured_checks(context: RunContext) -> dict[str, MeasuredCheck]:
    """Read the finished checks by cost."""
    return {
        name: MeasuredCheck(**read_json(context.run.result(_STAGE.format(name=name), _FILE)))
        for name in _checked(context)
    }


def _checked(context: RunContext) -> Iterator[str]:
    if context.teacher.memory.whole:
        yield from (name for name in measured_bounds(context.config) if read_measured(context.run, name) is not None)


def _check(context: RunContext, child: SubblockCheckpoint, name: str, predicted: float) -> None:
    found = read_measured(context.run, name)
    assert found is not None
    model, device, scenario = found[0], context.teacher.device, context.config.search.scenario
    stage = context.run.stage(
        _STAGE.format(name=name),
        {
            "child": child.fingerprint(),
            "predicted": predicted,
            "model": model.to_dict(),
            "execution": context.execution,
            "machine": describe_device(device),
        },
    )
    if stage.skipped:
        return
    from anyblock.modeling.load import map_model

    with stage.run() as folder:
        whole = map_model(child, context.family, device=device, dtype=context.teacher.dtype)
        rounds, cost = context.config.search.timing_rounds, cost_named(context, name)
        taken = cost.measure(
            {WHOLE: model_calls(whole, scenario)}, scenario, device=device, repeats=rounds, progress=context.progress
        )[WHOLE]
        check = MeasuredCheck(predicted, taken, model.factor, model.factor * taken / predicted)
        write_json_atomic(folder / _FILE, asdict(check))
