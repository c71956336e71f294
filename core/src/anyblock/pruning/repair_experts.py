"""Repairing the experts of a sparse subblock after channels of each were removed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.candidate_source import LinearFit
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.contract.tensor_axis import Silence
from anyblock.contract.tensor_select import Tensors, present
from anyblock.importance.statistics import Moments
from anyblock.pruning.least_squares import RIDGES, repair_removal


def repair_experts(
    mixin: PruningMixIn,
    layer_index: int,
    tensors_sorted: Tensors,
    block: BlockConfig,
    child: BlockConfig,
    config: Any,
    order: torch.Tensor,
    fit: Sequence[Moments],
    held_out: Sequence[Moments],
    *,
    ridges: Sequence[float] = RIDGES,
) -> tuple[dict[str, torch.Tensor], LinearFit]:
    """Narrow sorted experts and re-fit each one's output projection to what is left of its channels.

    Args:
        mixin: removes channels of experts.
        layer_index: the block's index.
        tensors_sorted: the subblock's tensors, as `mixin.sort` returned them.
        block: the teacher's block config.
        child: the child's block config.
        config: the configuration of the language model.
        order: the order that the tensors were sorted by, int64 `[channels]` or `[experts, channels]`.
        fit: moments of every expert's channels in the *unsorted* teacher (`ExpertGramStatistic.fit`).
        held_out: the same of other tokens. An expert that no token of one part reached stays as plain removal leaves it.
        ridges: see `repair_removal`.

    Returns:
        The child's tensors, and a fit of no weight: the median ridge of the experts that were fitted, and the errors of all
        experts' outputs together.

    Raises:
        UsageError: sizes that do not agree.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    result = mixin.narrow(layer_index, tensors_sorted, block, child, config)
    units, kept = mixin.size(block), torch.arange(mixin.size(child))
    orders = order.cpu().expand(len(fit), units)
    found: list[float] = []
    plain = error = total = 0.0
    for axis in present(mixin.axes(layer_index, block, config), tensors_sorted, units):
        if axis.segments[0].silence is not Silence.ZERO:
            continue
        each = axis.row == "each"
        if each:
            result[axis.name] = result[axis.name].clone()
        for expert in range(len(fit)) if each else (int(axis.row or 0),):
            if not (fit[expert].tokens and held_out[expert].tokens):
                continue
            weight = tensors_sorted[axis.name][expert] if each else tensors_sorted[axis.name]
            dim = axis.dim - int(each)
            moved = [_in_order(part[expert], orders[expert]) for part in (fit, held_out)]
            fitted = repair_removal(weight.movedim(dim, 1), kept, *moved, ridges=ridges)
            size = _size(weight.movedim(dim, 1), moved[1])
            plain, error, total = plain + fitted.plain_error * size, error + fitted.error * size, total + size
            if fitted.ridge is None:
                continue
            found.append(fitted.ridge)
            repaired = fitted.weight.movedim(1, dim)
            if each:
                result[axis.name][expert] = repaired
            else:
                result[axis.name] = repaired.contiguous()
    share = (plain / total, error / total) if total else (0.0, 0.0)
    return result, LinearFit(torch.empty(0), median(found) if found else None, *share)


def _in_order(moments: Moments, order: torch.Tensor) -> Moments:
    return Moments(moments.inputs[order][:, order], moments.tokens)


def _size(weight: torch.Tensor, moments: Moments) -> float:
    full = weight.detach().to(device="cpu", dtype=torch.float64)
    return float(((full @ moments.inputs.double()) * full).sum())
