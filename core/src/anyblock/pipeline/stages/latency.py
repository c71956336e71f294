"""Stage `latency`: how long each distinct subblock takes on this device.

It runs only when a budget asks for latency or throughput. Times are measured, so they differ from run to run; within a run
folder they are kept by content, and searches of other budgets use the same ones.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from anyblock.candidates.candidate import LINEAR, TEACHER, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights, candidate_shapes
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.config.schema import RunConfig, SearchConfig
from anyblock.contract.blocks import HALVES, group_name, layer_of
from anyblock.costs.registry import LATENCY
from anyblock.errors import UnsupportedModelError
from anyblock.latency.additive_model import FIXED, LatencyModel, LatencyScenario
from anyblock.latency.cache import TOGETHER, WHOLE, Shape, ShapeTimes, shape_key
from anyblock.modeling.device import describe_device
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder, digest, read_json
from anyblock.pipeline.stages.candidates import CostedCandidates

STAGE: Final = "latency"
_FILE: Final = "latency.json"
_TIMES: Final = "latency-times.json"


def wants_latency(config: RunConfig) -> bool:
    """Say whether a budget needs times."""
    return any(bound.cost == LATENCY for bound in config.search.bounds())


def latency_scenario(settings: SearchConfig) -> LatencyScenario:
    """Return what is timed: the search's batch, and its length split into a prompt and generated tokens."""
    generated = settings.generated_tokens
    return LatencyScenario(settings.batch, settings.length - generated, generated)


def run_latency(context: RunContext, costed: CostedCandidates) -> CostedCandidates:
    """Return the candidates with their measured latency among the costs; as they are when no budget asks for it.

    Raises:
        UnsupportedModelError: halves cannot be timed alone, since the family cannot remove the other one.
    """
    if not wants_latency(context.config):
        return costed
    keys, shapes = _shapes(context, costed)
    # A teacher that does not fit into memory is not timed as a whole; the sum of its parts then stands for it.
    plan, before = context.memory, context.before
    fixed, whole = _outside(context), digest(context.teacher.fingerprint()) if plan.whole else None
    stage = context.run.stage(
        STAGE,
        {
            "keys": keys,
            "fixed": fixed,
            "whole": whole,
            "original": None if before is None else [before.teacher.fingerprint(), before.memory.whole],
            "scenario": asdict(latency_scenario(context.config.search)),
            "repeats": context.config.search.timing_rounds,
            "execution": context.execution,
            "machine": describe_device(context.device),
        },
    )
    if not stage.skipped:
        with stage.run() as folder:
            model = _times(context).measure(shapes, fixed=fixed, whole=whole)
            if whole is not None:
                parts = [key for key in (keys[c.key] for c in costed.candidates if c.kind == TEACHER) if key]
                model = model.calibrated(parts, model.subblocks[WHOLE])
            told = (
                "does not fit into memory" if whole is None else f"takes {model.factor:.3f} times the sum of its parts"
            )
            context.progress.note(f"{len(shapes)} distinct subblocks timed; the teacher {told}")
            original = None if before is None else _original(before)
            write_json_atomic(folder / _FILE, {"model": model.to_dict(), "keys": keys, "original": original})
    return with_latency(context.run, costed)


def with_latency(run: RunFolder, costed: CostedCandidates) -> CostedCandidates:
    """Add the latency of the finished stage to the costs; candidates that it did not see leave them as they are."""
    found = read_latency(run)
    if found is None or any(candidate.key not in found[1] for candidate in costed.candidates):
        return costed
    model, keys, original = found
    costs = {
        key: {**values, LATENCY: model.latency(keys[key]) if keys[key] else 0.0} for key, values in costed.costs.items()
    }
    before = costed.original
    if before is not None and original is not None:
        before = {**before, LATENCY: original}
    return replace(costed, costs=costs, fixed={**costed.fixed, LATENCY: model.latency(FIXED)}, original=before)


def read_latency(run: RunFolder) -> tuple[LatencyModel, dict[str, str], float | None] | None:
    """Return what was timed; None when nothing was.

    Returns:
        The additive model, `{candidate key: key of its shape}`, and the latency in ms of the model as it was given where its
        hidden size was cut.
    """
    path = run.folder(STAGE) / _FILE
    if not path.is_file():
        return None
    data = read_json(path)
    return LatencyModel.from_dict(data["model"]), data["keys"], data.get("original")


def _original(context: RunContext) -> float:
    """Return the latency in ms of the model as it was given, which shares are shares of, in the same scenario."""
    if context.memory.whole:
        return _times(context).whole(digest(context.teacher.fingerprint()))
    blocks = context.source.block_configs
    parts = [
        Candidate(layer, half, TEACHER, 0, block)
        for layer, block in enumerate(blocks)
        for half in HALVES
        if not block.half(half).no_op
    ]
    keys, shapes = _shapes(context, CostedCandidates(blocks, parts, {}, {}))
    return _times(context).measure(shapes, fixed=_outside(context), whole=None).predict(keys.values())


def _times(context: RunContext) -> ShapeTimes:
    plan = context.memory
    return ShapeTimes(
        context.engine,
        latency_scenario(context.config.search),
        conditions=context.execution,
        path=context.run.path / _TIMES,
        repeats=context.config.search.timing_rounds,
        together=TOGETHER if plan.max_resident is None else min(TOGETHER, 2 * plan.max_resident),
        progress=context.progress,
    )


def _outside(context: RunContext) -> str:
    """Return the key of what is outside the layers: times depend on shapes and types alone."""
    outside = {
        group: {name: [str(tensor.dtype), *tensor.shape] for name, tensor in sorted(tensors.items())}
        for group, tensors in context.source.shapes.items()
        if layer_of(group) is None
    }
    return digest(outside)


def _shapes(context: RunContext, costed: CostedCandidates) -> tuple[dict[str, str], dict[str, Shape]]:
    """Return `{candidate key: key of its shape}`, empty for a no-op, and the distinct shapes by key."""
    # Times do not depend on which units a candidate keeps, so its weights need no order.
    weights = CandidateWeights(context.teacher, context.family, context.text_config, {})
    types = getattr(context.text_config, "layer_types", None)
    keys: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    for candidate in costed.candidates:
        layer, teacher = candidate.layer, costed.blocks[candidate.layer]
        if candidate.block_config.half(candidate.half).no_op:
            keys[candidate.key] = ""
            continue
        alone = _alone(context, candidate)
        tensors = dict(
            candidate_shapes(
                context.family,
                context.text_config,
                teacher,
                candidate,
                context.source.shapes[candidate.group],
                context.linear,
            )
        )
        tensors |= context.source.shapes.get(group_name(layer, "other"), {})
        cache = (
            context.family.cache_spec(context.source.config, alone, layer) if candidate.half == "attention" else None
        )
        content = shape_key(alone, tensors, layer, types[layer] if types else None, cache)
        key = keys[candidate.key] = f"{candidate.half} {digest(content)}"
        shapes.setdefault(key, Shape(layer, alone, partial(_tensors, context, weights, candidate)))
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
            hint="leave out the budget on latency or throughput",
        )
    return block.with_half(other, no_op=True)


def _tensors(context: RunContext, weights: CandidateWeights, candidate: Candidate) -> dict[str, Any]:
    import torch

    if candidate.kind == LINEAR:  # before the calibration, and a map takes equally long whatever its values are
        site = context.linear.sites[candidate.layer, candidate.half]
        width = int(context.text_config.hidden_size)
        tensors = site.tensors(context.teacher.load(candidate.group), torch.eye(width))
    else:
        tensors = weights.subblock(candidate)
    group = group_name(candidate.layer, "other")
    return tensors | context.teacher.load(group) if group in context.teacher.groups else tensors
