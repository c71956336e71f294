"""How a child's subblock is initialised from its teacher's, under the reference's names of the modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.contract.tensor_select import Tensors, present
from anyblock.errors import UsageError
from anyblock.pruning.experts import ExpertRemovalPruningMixIn
from anyblock.pruning.heads import KVHeadsPruningMixIn
from anyblock.pruning.ordering import best_first


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """What is to be initialised, and from what.

    Args:
        mixin: the axis that shrinks.
        layer_index: the block's index.
        tensors: the subblock's tensors by checkpoint name, as the teacher has them.
        block: the teacher's block config.
        child: the child's block config.
        config: the configuration of the language model.
        scores: one score a unit, for the modes that choose.
        higher_is_better: whether the highest scores are kept.
        scale_pruned_weights: whether the output projection is multiplied by teacher size / child size.
    """

    mixin: PruningMixIn
    layer_index: int
    tensors: Tensors
    block: BlockConfig
    child: BlockConfig
    config: Any
    scores: torch.Tensor | None = None
    higher_is_better: bool = True
    scale_pruned_weights: bool = False


def copy_as_is(what: Initialisation) -> dict[str, torch.Tensor]:
    """Take the teacher's tensors unchanged.

    Raises:
        UsageError: the child has another size.
    """
    before, after = what.mixin.size(what.block), what.mixin.size(what.child)
    if before != after:
        raise UsageError(
            f"{what.mixin.kind}: {before} units cannot be copied into {after}", expected="a child of the teacher's size"
        )
    return dict(what.tensors)


def truncate(what: Initialisation) -> dict[str, torch.Tensor]:
    """Keep the first units as they lie in the teacher."""
    return what.mixin.narrow(what.layer_index, what.tensors, what.block, what.child, what.config)


def prune_by_importance(what: Initialisation) -> dict[str, torch.Tensor]:
    """Keep the units with the best scores, the best first.

    Raises:
        UsageError: there are no scores, or the child's size is not legal.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    mixin = what.mixin
    if what.scores is None:
        raise UsageError(f"{mixin.kind}: layer {what.layer_index} has no scores", expected="one score a unit")
    order = best_first(what.scores, higher_is_better=what.higher_is_better)
    tensors = mixin.sort(what.layer_index, what.tensors, what.block, order, what.config)
    result = mixin.narrow(what.layer_index, tensors, what.block, what.child, what.config)
    before, after = mixin.size(what.block), mixin.size(what.child)
    if what.scale_pruned_weights and before != after:
        output = mixin.axes(what.layer_index, what.block, what.config)[0].name
        result[output] = result[output] * (before / after)
    return result


def prune_kv_heads(what: Initialisation) -> dict[str, torch.Tensor]:
    """Keep the best key-value heads and every query head.

    Raises:
        UsageError: the mixin is of another kind, there are no scores, or the child's size is not legal.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    _check_kind(what, KVHeadsPruningMixIn)
    return prune_by_importance(what)


def remove_experts(what: Initialisation) -> dict[str, torch.Tensor]:
    """Keep the best experts.

    Raises:
        UsageError: the mixin is of another kind, there are no scores, or the child's size is not legal.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    _check_kind(what, ExpertRemovalPruningMixIn)
    return prune_by_importance(what)


def average_kv(what: Initialisation) -> dict[str, torch.Tensor]:
    """Make every key-value head of the child the mean of the teacher's heads that it stands for.

    Raises:
        UsageError: the mixin is of another kind, or the child's size is not legal.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    return _pooled(what, lambda heads, dim: heads.mean(dim=dim))


def first_kv(what: Initialisation) -> dict[str, torch.Tensor]:
    """Make every key-value head of the child the first of the teacher's heads that it stands for.

    Raises:
        UsageError: the mixin is of another kind, or the child's size is not legal.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    return _pooled(what, lambda heads, dim: heads.select(dim, 0))


INIT_MODES: Final[dict[str, Callable[[Initialisation], dict[str, torch.Tensor]]]] = {
    "CopyAsIs": copy_as_is,
    "Truncate": truncate,
    "PruneByActivationsLog": prune_by_importance,
    "AverageKV": average_kv,
    "FirstKV": first_kv,
    "PruneKVHeads": prune_kv_heads,
    "ExpertRemoval": remove_experts,
}
"""The modes by the reference's names."""
POOLING: Final = {"average": average_kv, "first": first_kv}
"""The modes in which a unit of the child is made from several of the teacher's, by the names that configurations use."""


def _check_kind(what: Initialisation, wanted: type[PruningMixIn]) -> None:
    if not isinstance(what.mixin, wanted):
        raise UsageError(f"this mode is not for the kind {what.mixin.kind}", expected=f"the kind {wanted.kind}")


def _pooled(what: Initialisation, pool: Callable[[torch.Tensor, int], torch.Tensor]) -> dict[str, torch.Tensor]:
    _check_kind(what, KVHeadsPruningMixIn)
    units, size = what.mixin.size(what.block), what.mixin.size(what.child)
    what.mixin.check_size(what.block, size, what.config)
    result = dict(what.tensors)
    for axis in present(what.mixin.axes(what.layer_index, what.block, what.config), result, units):
        if all(segment.role == "query" for segment in axis.segments):
            continue
        parts = []
        for start, segment in axis.placed(units):
            part = result[axis.name].narrow(axis.dim, start, segment.length(units))
            if segment.role == "unit":
                rest = part.shape[axis.dim + 1 :]
                heads = part.reshape(*part.shape[: axis.dim], size, units // size, segment.width, *rest)
                part = pool(heads, axis.dim + 1).flatten(axis.dim, axis.dim + 1)
            parts.append(part)
        result[axis.name] = torch.cat(parts, dim=axis.dim)
    return result
