"""Repairing a pruned subblock: the output projection of what a mixin narrowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.candidate_source import LinearFit
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.contract.tensor_axis import entries
from anyblock.contract.tensor_select import Tensors, present
from anyblock.errors import UnsupportedModelError
from anyblock.importance.statistics import Moments
from anyblock.pruning.least_squares import RIDGES, repair_removal


def repair_child(
    mixin: PruningMixIn,
    layer_index: int,
    tensors_sorted: Tensors,
    block: BlockConfig,
    child: BlockConfig,
    config: Any,
    order: torch.Tensor,
    fit: Moments,
    held_out: Moments,
    *,
    ridges: Sequence[float] = RIDGES,
) -> tuple[dict[str, torch.Tensor], LinearFit]:
    """Narrow sorted tensors and re-fit the output projection to what is left of its inputs.

    Args:
        mixin: the axis; one whose units feed one linear map (FFN channels, heads).
        layer_index: the block's index.
        tensors_sorted: the subblock's tensors, as `mixin.sort` returned them.
        block: the teacher's block config.
        child: the child's block config.
        config: the configuration of the language model.
        order: the order that the tensors were sorted by, int64 `[units]`.
        fit: moments of the output projection's inputs in the *unsorted* teacher (`GramStatistic.fit`).
        held_out: the same of other tokens.
        ridges: see `repair_removal`.

    Returns:
        The child's tensors, and the fit with its errors.

    Raises:
        UnsupportedModelError: the mixin's units do not feed one linear map.
        UsageError: sizes that do not agree, or moments of no tokens.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    if mixin.repair != "one_map":
        raise UnsupportedModelError(
            f"{mixin.kind} cannot be repaired by least squares",
            expected="a mixin whose attribute repair is one_map: its units feed one linear map",
        )
    result = mixin.narrow(layer_index, tensors_sorted, block, child, config)
    units, size = mixin.size(block), mixin.size(child)
    output = present(mixin.axes(layer_index, block, config)[:1], tensors_sorted, units)[0]

    def inputs(chosen: torch.Tensor) -> torch.Tensor:
        return entries(output.runs(units, {"unit": chosen, "query": chosen}))

    # In the moments' own order: where each sorted input was in the teacher.
    origin = inputs(order.cpu())
    moved = (Moments(part.inputs[origin][:, origin], part.tokens) for part in (fit, held_out))
    weight = tensors_sorted[output.name]
    fitted = repair_removal(weight.movedim(output.dim, 1), inputs(torch.arange(size)), *moved, ridges=ridges)
    if fitted.ridge is not None:
        places = inputs(mixin.places(block, size)).to(weight.device)
        repaired = fitted.weight.movedim(1, output.dim)
        result[output.name] = result[output.name].index_copy(output.dim, places, repaired)
    return result, fitted
