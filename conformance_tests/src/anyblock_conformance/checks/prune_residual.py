"""Prune: is a model with fewer channels of the residual stream what the teacher is without them?"""

from __future__ import annotations

import copy
from collections import ChainMap
from typing import Any

import torch
from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HookPlan, sweep_importance
from anyblock.contract.residual_pruning import HIDDEN_SIZE, ResidualPruning
from anyblock.costs.cost_model import Scenario, model_costs
from anyblock.errors import CheckpointError, UsageError
from anyblock.modeling.complete import require_complete
from anyblock.modeling.skeleton import build_skeleton
from anyblock.modeling.weights import WeightMap

from anyblock_conformance.check import check
from anyblock_conformance.checks.prune_costs import counted, meta_tensors
from anyblock_conformance.checks.prune_ranking import usable_hooks
from anyblock_conformance.children import changed_teacher, layered_model
from anyblock_conformance.expect import NotApplicableError, equal, fail, nothing, same, that
from anyblock_conformance.pruned import norms_over, scale_epsilons
from anyblock_conformance.subject import Subject, logits


@check("prune.residual-sizes", capability=HIDDEN_SIZE, depends_on=["structure.language-config"])
def check_residual_sizes(subject: Subject) -> None:
    """Legal hidden sizes ascend to the model's own, and others are refused.

    Why: a run cuts the whole model to such a size before it makes any candidate.

    How to fix: let `legal_sizes` list every hidden size that the model can be built with, and `check_size` (which the base
    implements) raise a `UsageError` for any other.
    """
    stream, config = stream_of(subject), subject.text_config
    sizes = list(stream.legal_sizes(config))
    equal(sizes, sorted(set(sizes)), "the legal hidden sizes")
    equal(sizes[-1], config.hidden_size, "the largest legal hidden size")
    for size in (0, -1, sizes[-1] + 1, *(set(range(1, sizes[-1])) - set(sizes))):
        try:
            stream.check_size(size, config)
        except UsageError:
            continue
        fail(f"a hidden size of {size} is accepted, and {sizes[0]} to {sizes[-1]} are legal")


@check(
    "prune.residual-shapes",
    capability=HIDDEN_SIZE,
    depends_on=["prune.residual-sizes", "structure.dtypes", "convert.bit-for-bit"],
)
def check_residual_shapes(subject: Subject) -> None:
    """Narrowed tensors are exactly those that the model has with the child's configuration, in name and shape.

    Why: `axes` and `child_config` each describe the child. Where they differ, it cannot be loaded.

    How to fix: let `axes` find every tensor that reads the residual stream, writes to it or normalises it, biases, embedding
    and head included, and let `child_config` state each size that would otherwise follow from the hidden size.
    """
    stream = stream_of(subject)
    sizes = smaller_sizes(subject, stream)
    for size in sorted({sizes[0], sizes[-1]}):
        try:
            if subject.scope == "tiny":
                model = _narrower(subject, stream, size, torch.arange(int(subject.text_config.hidden_size)))
                left = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
                nothing(left, f"the model with a hidden size of {size}: narrow gives no tensor for")
            else:
                narrowed = [stream.narrow(tensors, size) for tensors in meta_tensors(subject.converted).values()]
                require_complete(
                    _unloaded(subject, stream, size), dict(ChainMap(*narrowed)), f"a hidden size of {size}"
                )
        except CheckpointError as error:
            fail(str(error))


@check("prune.residual-sort", capability=HIDDEN_SIZE, depends_on=["prune.residual-shapes"])
def check_residual_sort(subject: Subject) -> None:
    """Sorting the channels leaves the model's function as it is, and sorting by `p` and then by `q` is sorting by `p[q]`.

    Why: channels are sorted once and the worst cut off. A tensor that is left unsorted belongs to other channels than the
    rest, and an order that is taken for ranks keeps other channels than those that score best.

    How to fix: let `axes` find every tensor with an entry for each channel; `order[0]` is the index of the best channel, so
    `sort` puts channel `order[k]` into place `k`.
    """
    stream, order = stream_of(subject), _order(subject)
    model = changed_teacher(subject, lambda group: stream.sort(subject.load(group), order))
    found = logits(model, subject.ids)
    del model
    subject.close(found, subject.logits, "logits after sorting the channels, next to those before")
    again, embeddings = order.flip(0), subject.converted.load("embeddings")
    once = stream.sort(embeddings, order[again])
    for name, tensor in stream.sort(stream.sort(embeddings, order), again).items():
        same(tensor, once[name], f"{name} sorted by p and then by q, next to p[q],")


@check("prune.residual-masked-teacher", capability=HIDDEN_SIZE, depends_on=["prune.residual-sort", "build.buffers"])
def check_residual_masked_teacher(subject: Subject) -> None:
    """The narrower model gives the logits of the teacher whose removed channels are silenced.

    Why: this is what pruning means. Norms divide by the mean over the channels that are left.

    How to fix: `narrow` keeps the first channels of every tensor that touches the stream, and `mask` silences exactly the
    others: it zeroes what writes them, and scales norms as their mean changes (`Silence.NORM`).
    """
    stream, order, channels = stream_of(subject), _order(subject), int(subject.text_config.hidden_size)
    size = smaller_sizes(subject, stream)[-4:][0]
    found = logits(_narrower(subject, stream, size, order), subject.ids)
    teacher = changed_teacher(subject, lambda group: stream.mask(stream.sort(subject.load(group), order), size))
    for group in subject.converted.groups:
        tensors = subject.converted.meta(group)
        scale_epsilons(subject, teacher, norms_over(stream.axes(tensors), tensors, channels), size / channels)
    subject.close(found, logits(teacher, subject.ids), f"logits with a hidden size of {size}")


@check("prune.residual-hook-targets", capability=HIDDEN_SIZE, depends_on=["build.layerwise"])
def check_residual_hook_targets(subject: Subject) -> None:
    """Every importance hook that ranks the channels is registered under its class name, and scores each of them.

    Why: YAML files and the command line name hooks. One that watches another module scores other things than the channels.

    How to fix: let `hook_target` give the path, inside the decoder layer, of the module that the hook watches; give own hooks
    in `importance_hooks` under their class names.
    """
    stream = stream_of(subject)
    hooks = usable_hooks(subject, stream, HIDDEN_SIZE)
    if any(block.attention.no_op or block.ffn.no_op for block in subject.blocks):
        raise NotApplicableError("a layer whose half was removed has no norm that could be watched")
    for hook in hooks:
        plan = HookPlan(HIDDEN_SIZE, hook.__name__, hook, stream)
        batches = Batches(subject.tokens(4, 16, seed=3), batch_size=4)
        for key, scores in sweep_importance(subject.engine, [plan], batches).items():
            what = f"the scores of {hook.__name__} in layer {key.layer}"
            equal(list(scores.shape), [subject.text_config.hidden_size], f"the shape of {what}")
            equal(scores.dtype, torch.float32, f"the dtype of {what}")
            that(bool(torch.isfinite(scores).all()), f"{what} are not finite: {scores.tolist()}")


@check("prune.residual-costs", capability=HIDDEN_SIZE, depends_on=["prune.residual-shapes"])
def check_residual_costs(subject: Subject) -> None:
    """Parameters of the narrower model, predicted from shapes before anything is written, are those that it has.

    Why: the search keeps its budget by these predictions.

    How to fix: `narrow` has to work on tensors on the meta device as on real ones.
    """
    stream = stream_of(subject)
    size = smaller_sizes(subject, stream)[-1]
    narrowed = {group: stream.narrow(tensors, size) for group, tensors in meta_tensors(subject.converted).items()}
    found = model_costs(subject.family, _config(subject, stream, size), subject.blocks, narrowed, Scenario())
    model = _unloaded(subject, stream, size)
    equal(found.params, counted(model), f"the predicted parameters with a hidden size of {size} (counted in the model)")


def stream_of(subject: Subject) -> ResidualPruning:
    """Return how the adapter prunes the residual stream.

    Raises:
        NotApplicableError: it does not, or the stream cannot lose a channel.
    """
    if subject.stream is None:
        raise NotApplicableError("residual_stream gives nothing")
    if not smaller_sizes(subject, subject.stream):
        raise NotApplicableError("the residual stream cannot lose a channel")
    return subject.stream


def smaller_sizes(subject: Subject, stream: ResidualPruning) -> list[int]:
    """Return the legal hidden sizes below the model's own, ascending."""
    config = subject.text_config
    return [size for size in stream.legal_sizes(config) if size < config.hidden_size]


def _order(subject: Subject) -> torch.Tensor:
    return torch.randperm(int(subject.text_config.hidden_size), generator=torch.Generator().manual_seed(5))


def _config(subject: Subject, stream: ResidualPruning, size: int) -> Any:
    config = copy.deepcopy(subject.config)
    text = subject.family.language_model_config(config)
    for name, value in stream.child_config(text, size).items():
        setattr(text, name, value)
    return config


def _narrower(subject: Subject, stream: ResidualPruning, size: int, order: torch.Tensor) -> Any:
    """Return the child with the first `size` channels in this order."""

    def narrowed(group: str) -> dict[str, torch.Tensor]:
        return stream.narrow(stream.sort(subject.converted.load(group), order), size)

    if subject.scope != "tiny":
        return layered_model(subject, narrowed, config=_raw_config(subject, stream, size))
    model = _unloaded(subject, stream, size)
    weights = WeightMap(model)
    for group in subject.converted.groups:
        weights.assign(narrowed(group), device="cpu", where=f"the narrower group {group}")
    model.tie_weights()
    subject.family.init_rotary_embedding(model, torch.device("cpu"), model.dtype)
    return model


def _unloaded(subject: Subject, stream: ResidualPruning, size: int) -> Any:
    """Return a child of this size without weights, on the meta device."""
    return build_skeleton(subject.family, _config(subject, stream, size), subject.blocks)


def _raw_config(subject: Subject, stream: ResidualPruning, size: int) -> dict[str, Any]:
    """Return the content of the child's `config.json`."""
    raw, changes = subject.converted.config, stream.child_config(subject.text_config, size)
    parts = [
        key
        for key, value in raw.items()
        if isinstance(value, dict) and getattr(subject.config, key, None) is subject.text_config
    ]
    return {**raw, **({key: {**raw[key], **changes} for key in parts} or changes)}
