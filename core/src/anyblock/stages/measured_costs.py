"""Stages `measured-costs:NAME`: what each distinct subblock takes on this device.

A cost is measured only where a budget bounds it, or a rate of it. Measurements differ from run to run; within a
run folder they are kept by content, and searches of other budgets use the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from anyblock.candidates.candidate import TEACHER, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.config.schema import RunConfig
from anyblock.contract.blocks import HALVES, group_name, layer_of
from anyblock.contract.cost import MeasuredCost
from anyblock.costs.registry import known_costs
from anyblock.errors import UnsupportedModelError
from anyblock.measuring.additive_model import FIXED, AdditiveModel
from anyblock.measuring.shape_times import TOGETHER, WHOLE, Shape, ShapeTimes, shape_key
from anyblock.modeling.device import describe_device
from anyblock.run.context import RunContext, RunModel
from anyblock.run.run_folder import RunFolder, digest, read_json
from anyblock.stages.candidates import CostedCandidates

_STAGE: Final = "measured-costs:{name}"
_FILE: Final = "{name}.json"
_TIMES: Final = "{name}-times.json"


def measured_bounds(config: RunConfig) -> list[str]:
    """Return the measured costs that the run's budgets bound."""
    known = known_costs()
    costs = dict.fromkeys(bound.cost for bound in config.search.bounds())
    return [cost for cost in costs if issubclass(known[cost], MeasuredCost)]


def run_measured_costs(context: RunContext, costed: CostedCandidates) -> CostedCandidates:
    """Return the candidates with what budgets bound and has to be measured among their costs.

    Raises:
        UnsupportedModelError: halves cannot be timed alone, since the family cannot remove the other one.
    """
    for name in measured_bounds(context.config):
        _measure(context, costed, name)
        costed = with_measured_costs(context.run, costed)
    return costed


def _measure(context: RunContext, costed: CostedCandidates, name: str) -> None:
    cost = cost_named(context, name)
    teacher, reference = context.teacher, context.reference
    keys, shapes = _shapes(context, teacher, costed.candidates)
    fixed, whole = _outside(teacher), _whole(teacher)
    stage = context.run.stage(
        _STAGE.format(name=name),
        {
            "cost": [str(context.family.origins("costs")[name]), cost.settings_given.to_dict()],
            "keys": keys,
            "fixed": fixed,
            "whole": whole,
            "reference": [reference.checkpoint.fingerprint(), reference.memory.whole],
            "scenario": asdict(context.config.search.scenario),
            "repeats": context.config.search.timing_rounds,
            "execution": context.execution,
            "machine": describe_device(teacher.device),
        },
    )
    if not stage.skipped:
        with stage.run() as folder:
            model = _times(context, teacher, cost, name).measure(shapes, fixed=fixed, whole=whole)
            if whole is not None:
                teachers = {c.group: keys[c.key] for c in costed.candidates if c.kind == TEACHER}
                parts = [key for key in teachers.values() if key]
                model = model.calibrated(parts, model.subblocks[WHOLE])
            found = (
                "does not fit into memory" if whole is None else f"takes {model.factor:.3f} times the sum of its parts"
            )
            context.progress.note(f"{name}: {len(shapes)} distinct subblocks measured; the teacher {found}")
            total = _total(context, reference, cost, name)
            data = {"model": model.to_dict(), "keys": keys, "reference": total}
            write_json_atomic(folder / _FILE.format(name=name), data)


def with_measured_costs(run: RunFolder, costed: CostedCandidates) -> CostedCandidates:
    """Add what finished stages measured to the costs; a stage that did not see all candidates leaves them as they are."""
    for name, cost in known_costs().items():
        found = read_measured(run, name) if issubclass(cost, MeasuredCost) else None
        if found is None or any(candidate.key not in found[1] for candidate in costed.candidates):
            continue
        model, keys, total = found
        costs = {
            key: {**values, name: model.cost(keys[key]) if keys[key] else 0.0} for key, values in costed.costs.items()
        }
        fixed, reference = {**costed.fixed, name: model.cost(FIXED)}, {**costed.reference, name: total}
        costed = replace(costed, costs=costs, fixed=fixed, reference=reference)
    return costed


def read_measured(run: RunFolder, name: str) -> tuple[AdditiveModel, dict[str, str], float] | None:
    """Return what was measured; None when nothing was.

    Returns:
        The additive model, `{candidate key: key of its shape}`, and the cost of the model as it was given.
    """
    path = run.folder(_STAGE.format(name=name)) / _FILE.format(name=name)
    data = read_json(path) if path.is_file() else {}
    if "reference" not in data:  # not measured, or by a version that did not measure all of it
        return None
    return AdditiveModel.from_dict(data["model"]), data["keys"], data["reference"]


def _total(context: RunContext, model: RunModel, cost: MeasuredCost, name: str) -> float:
    """Return the cost of a whole model; where it does not fit into memory, as the sum over its parts."""
    times, whole = _times(context, model, cost, name), _whole(model)
    if whole is not None:
        return times.whole(whole)
    parts = [
        Candidate(layer, half, TEACHER, 0, block)
        for layer, block in enumerate(model.source.block_configs)
        for half in HALVES
        if not block.half(half).no_op
    ]
    keys, shapes = _shapes(context, model, parts)
    return times.measure(shapes, fixed=_outside(model), whole=None).predict(keys.values())


def cost_named(context: RunContext, name: str) -> MeasuredCost:
    """Return a measured cost with its settings."""
    chosen = context.family.named("costs")[name]
    made = chosen(context.config.section(f"costs.{name}", chosen.settings))
    assert isinstance(made, MeasuredCost)
    return made


def _times(context: RunContext, model: RunModel, cost: MeasuredCost, name: str) -> ShapeTimes:
    resident = model.memory.max_resident
    return ShapeTimes(
        model.engine,
        cost,
        context.config.search.scenario,
        conditions=context.execution,
        path=context.run.path / _TIMES.format(name=name),
        repeats=context.config.search.timing_rounds,
        together=TOGETHER if resident is None else min(TOGETHER, 2 * resident),
        progress=context.progress,
    )


def _whole(model: RunModel) -> str | None:
    """Return the key of a model as a whole; None where it does not fit into memory."""
    return digest(model.checkpoint.fingerprint()) if model.memory.whole else None


def _outside(model: RunModel) -> str:
    """Return the key of what is outside the layers: times depend on shapes and types alone."""
    outside = {
        group: {name: [str(tensor.dtype), *tensor.shape] for name, tensor in sorted(tensors.items())}
        for group, tensors in model.source.shapes.items()
        if layer_of(group) is None
    }
    return digest(outside)


def _shapes(
    context: RunContext, model: RunModel, candidates: Sequence[Candidate]
) -> tuple[dict[str, str], dict[str, Shape]]:
    """Return `{candidate key: key of its shape}`, empty for a no-op, and the distinct shapes by key."""
    # Times do not depend on which units a candidate keeps, so its weights need no order.
    family, source, text = context.family, model.source, model.text_config
    weights = CandidateWeights(model.checkpoint, family, text, {}, context.pooled, context.sources)
    types = getattr(text, "layer_types", None)
    keys: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    for candidate in candidates:
        layer = candidate.layer
        if candidate.block_config.half(candidate.half).no_op:
            keys[candidate.key] = ""
            continue
        alone = _alone(context, candidate)
        tensors = dict(weights.shapes(candidate, source.shapes[candidate.group]))
        tensors |= source.shapes.get(group_name(layer, "other"), {})
        cache = family.cache_spec(source.config, alone, layer) if candidate.half == "attention" else None
        content = shape_key(alone, tensors, layer, types[layer] if types else None, cache)
        key = keys[candidate.key] = f"{candidate.half} {digest(content)}"
        shapes.setdefault(key, Shape(layer, alone, partial(_tensors, model, weights, candidate.unrounded)))
    return keys, shapes


def _alone(context: RunContext, candidate: Candidate) -> Any:
    """Return the candidate's block without its other half."""
    block = candidate.block_config
    other = "ffn" if candidate.half == "attention" else "attention"
    if block.half(other).no_op:
        return block
    if not context.family.supports(f"{other}_no_op"):
        raise UnsupportedModelError(
            f"{candidate.key} cannot be timed: {context.family.distribution} does not support {other}_no_op",
            expected="a family whose halves can be removed, so that each is timed alone",
            hint="leave out the budgets on measured costs",
        )
    return block.with_half(other, no_op=True)


def _tensors(model: RunModel, weights: CandidateWeights, candidate: Candidate) -> dict[str, Any]:
    tensors, group = weights.subblock(candidate), group_name(candidate.layer, "other")
    return tensors | model.checkpoint.load(group) if group in model.checkpoint.groups else tensors
