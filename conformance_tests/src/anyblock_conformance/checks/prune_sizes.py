"""Prune: are sizes and shapes what the mixin says?"""

from __future__ import annotations

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.errors import CheckpointError, UsageError
from anyblock.modeling.skeleton import build_skeleton
from anyblock.modeling.weights import WeightMap

from anyblock_conformance.check import check
from anyblock_conformance.children import tensors_of
from anyblock_conformance.expect import equal, fail, nothing, that
from anyblock_conformance.kinds import pruning_cases, resized, smaller_sizes, without, works_on
from anyblock_conformance.pruned import candidate, mixin_for, random_orders, sorted_half
from anyblock_conformance.subject import Subject


@check("prune.sizes", capability="{case}", cases=pruning_cases, depends_on=["structure.block-configs"])
def check_sizes(subject: Subject, kind: str) -> None:
    """Legal sizes ascend to the layer's own, resizing to each gives a block of that size, and others are refused.

    Why: candidates are made from these sizes alone. A size that is accepted and cannot be built fails after hours of
    calibration.

    How to fix: let `legal_sizes` list every size that the layer's constructor accepts, `resized` change only this
    kind's half, and `check_size` (which the base implements) raise a `UsageError` for any other size.
    """
    mixin = mixin_for(subject, kind)
    for layer in works_on(subject, kind):
        _check_layer(subject, mixin, kind, layer)


def _check_layer(subject: Subject, mixin: PruningMixIn, kind: str, layer: int) -> None:
    block, config = subject.blocks[layer], subject.text_config
    other = "ffn" if mixin.half == "attention" else "attention"
    sizes = list(mixin.legal_sizes(block, config))
    equal(sizes, sorted(set(sizes)), f"the legal sizes of {kind} in layer {layer}")
    equal(sizes[-1:], [mixin.size(block)], f"the largest legal size of {kind} in layer {layer}")
    for size in sizes:
        child = resized(subject, kind, layer, size)
        equal(mixin.size(child), size, f"the size of layer {layer} resized to {size} {kind}")
        equal(getattr(child, other), getattr(block, other), f"the {other} of layer {layer} resized to {size} {kind}")
    that(
        not mixin.applies_to(without(block, mixin.half)),
        f"{kind} says that it applies to a block whose {mixin.half} is a no-op",
    )
    for size in (0, -1, sizes[-1] + 1, *(set(range(1, sizes[-1])) - set(sizes))):
        _check_refused(mixin, kind, block, size, config)


def _check_refused(mixin: PruningMixIn, kind: str, block: BlockConfig, size: int, config: object) -> None:
    try:
        mixin.check_size(block, size, config)
    except UsageError:
        return
    fail(f"{kind} accepts {size} units of {mixin.size(block)}, which is not a legal size")


@check(
    "prune.shapes", capability="{case}", cases=pruning_cases, depends_on=["structure.overrides", "convert.bit-for-bit"]
)
def check_shapes(subject: Subject, kind: str) -> None:
    """Narrowed tensors are exactly those that the model has with the child's block config, in name and shape.

    Why: mixin and overrides each describe the child. Where they differ, it cannot be loaded.

    How to fix: let the mixin's layer descriptor name every tensor along which the units lie, biases included, and the
    overrides set every attribute from which their shapes follow.
    """
    mixin = mixin_for(subject, kind)
    for layer in works_on(subject, kind):
        sizes, block = smaller_sizes(subject, kind, layer), subject.blocks[layer]
        for size in sorted({*sizes[:1], *sizes[-1:]}):
            wanted = candidate(subject, kind, layer, size)
            tensors = sorted_half(subject, wanted, random_orders(subject, kind))
            narrowed = mixin.narrow(layer, tensors, block, wanted.block_config, subject.text_config)
            blocks = [*subject.blocks[:layer], wanted.block_config, *subject.blocks[layer + 1 :]]
            model = build_skeleton(subject.family, subject.config, blocks)
            where = f"layer {layer} with {size} of {mixin.size(block)} {kind}"
            try:
                WeightMap(model).assign(narrowed, device="cpu", where=where)
            except CheckpointError as error:
                fail(str(error))
            state = model.state_dict()
            left = [name for name in tensors_of(subject, layer, mixin.half) if name in state and state[name].is_meta]
            nothing(sorted(left), f"{where}: narrow gives no tensor for")
