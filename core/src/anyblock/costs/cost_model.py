"""Exact costs of a candidate and of a whole model: parameters, active parameters, weight memory, cache memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyblock.contract.blocks import HALVES, Half, group_name
from anyblock.contract.cost import CostedSubblock
from anyblock.contract.settings import Section
from anyblock.costs.registry import CandidateCosts, counted_costs
from anyblock.costs.weights import dtype_bytes, is_tied, non_block_tensors, tensor_cost
from anyblock.errors import PluginError, UsageError
from anyblock.plugins.blame import blaming, check_result

if TYPE_CHECKING:
    import torch

    from anyblock.contract.blocks import BlockConfig
    from anyblock.family import ModelFamily
    from anyblock.plugins.status import Origin


@dataclass(frozen=True)
class Scenario:
    """What memory is counted for.

    Attributes:
        batch_size: sequences that are decoded together.
        length: tokens of each, prompt and answer together.
        cache_dtype: dtype of the cache.
        weight_dtype: count weights as stored in this dtype; None takes each tensor's own.
        settings: `((cost, its settings), ...)` of costs whose settings are not the default ones.
    """

    batch_size: int = 1
    length: int = 4096
    cache_dtype: str = "bfloat16"
    weight_dtype: str | None = None
    settings: tuple[tuple[str, Section], ...] = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.length < 1:
            raise UsageError(f"batch size {self.batch_size}, length {self.length}", expected="both at least 1")
        for dtype in filter(None, (self.cache_dtype, self.weight_dtype)):
            dtype_bytes(dtype)


@dataclass(frozen=True)
class Costs:
    """The costs of a whole model.

    Attributes:
        total: all of it.
        fixed: the part that no choice of candidates changes (embeddings, head, extra groups).
        subblocks: the other part by group, for instance `block_3_ffn`.
    """

    total: CandidateCosts
    fixed: CandidateCosts
    subblocks: Mapping[str, CandidateCosts]

    @property
    def params(self) -> int:
        """Parameters of the model."""
        return int(self.total["params"])


def subblock_costs(
    family: ModelFamily,
    config: Any,
    block_config: BlockConfig,
    layer_index: int,
    half: Half,
    tensors: Mapping[str, torch.Tensor],
    scenario: Scenario,
) -> CandidateCosts:
    """Return the costs of one subblock, be it the teacher's or a candidate.

    Args:
        family: asked for the layer's cache.
        config: the model's config, as the family's hooks take it.
        block_config: the block with this subblock in it.
        layer_index: the layer.
        half: which subblock.
        tensors: the subblock's tensors by checkpoint name, also on the meta device; empty for a no-op.
        scenario: see `Scenario`.
    """
    weights = tensor_cost(tensors, dtype=scenario.weight_dtype)
    part = CostedSubblock(
        layer=layer_index,
        half=half,
        block_config=block_config,
        tensors=tensors,
        params=weights.params,
        weight_bytes=weights.bytes,
        cache=family.cache_spec(config, block_config, layer_index) if half == "attention" else None,
        cache_width=dtype_bytes(scenario.cache_dtype),
        batch_size=scenario.batch_size,
        length=scenario.length,
    )
    origins = family.origins("costs")
    return {
        name: _number(cost.subblock, origins[name], name, part)
        for name, cost in counted_costs(family, scenario.settings).items()
    }


def _number(count: Callable[..., float], origin: Origin, name: str, *arguments: Any) -> float:
    with blaming(origin, f"the cost {name!r}", count.__self__):  # type: ignore[attr-defined]
        found = count(*arguments)
    check_result(origin, f"the cost {name!r}", found, (int, float), "a number")
    if not 0 <= found < float("inf"):
        raise PluginError(f"the cost {name!r} of {origin} is {found}", expected="a finite number, 0 or above")
    return float(found)


def fixed_costs(
    family: ModelFamily,
    config: Any,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    num_layers: int,
    scenario: Scenario,
) -> CandidateCosts:
    """Return the costs of everything outside the subblocks; all of its parameters count as active.

    Args:
        family: asked for the text config, which may say that the head is tied.
        config: the model's config.
        tensors: `{group: {name: tensor}}` of a whole subblock checkpoint.
        num_layers: layers of the model.
        scenario: see `Scenario`.
    """
    tied = is_tied(config, family.language_model_config(config))
    outside = non_block_tensors(tensors, tied=tied, num_layers=num_layers)
    weights = tensor_cost(outside, dtype=scenario.weight_dtype)
    origins = family.origins("costs")
    return {
        name: _number(cost.outside, origins[name], name, weights.params, weights.bytes)
        for name, cost in counted_costs(family, scenario.settings).items()
    }


def model_costs(
    family: ModelFamily,
    config: Any,
    block_configs: Sequence[BlockConfig],
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    scenario: Scenario | None = None,
) -> Costs:
    """Return the costs of a whole model; nothing is loaded.

    Args:
        family: the model's family.
        config: the model's config, as the family's hooks take it.
        block_configs: one a layer.
        tensors: `{group: {name: tensor}}`, such as `{group: checkpoint.meta(group) for group in checkpoint.groups}`.
        scenario: see `Scenario`; None is one sequence of 4096 tokens with a bfloat16 cache.
    """
    scenario = scenario or Scenario()
    subblocks = {
        group_name(index, half): subblock_costs(
            family, config, block, index, half, tensors.get(group_name(index, half), {}), scenario
        )
        for index, block in enumerate(block_configs)
        for half in HALVES
    }
    fixed = fixed_costs(family, config, tensors, len(block_configs), scenario)
    return Costs(add_costs([fixed, *subblocks.values()]), fixed, subblocks)


def add_costs(parts: Sequence[CandidateCosts]) -> CandidateCosts:
    """Return the sum of costs, name by name; a name that a part lacks counts as 0 there."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}
