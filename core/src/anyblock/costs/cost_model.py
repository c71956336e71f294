"""Exact costs of a candidate and of a whole model: parameters, active parameters, weight memory, cache memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyblock.contract.blocks import HALVES, Half, group_name
from anyblock.costs.active import active_params
from anyblock.costs.registry import CandidateCosts, cost_names
from anyblock.costs.weights import dtype_bytes, is_tied, non_block_cost, tensor_cost
from anyblock.errors import UsageError

if TYPE_CHECKING:
    import torch

    from anyblock.contract.blocks import BlockConfig
    from anyblock.family import ModelFamily


@dataclass(frozen=True)
class Scenario:
    """What memory is counted for.

    Attributes:
        batch_size: sequences that are decoded together.
        length: tokens of each, prompt and answer together.
        cache_dtype: dtype of the cache.
        weight_dtype: count weights as stored in this dtype; None takes each tensor's own.
    """

    batch_size: int = 1
    length: int = 4096
    cache_dtype: str = "bfloat16"
    weight_dtype: str | None = None

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

    @property
    def active_params(self) -> int:
        """Parameters that one token uses."""
        return round(self.total["active_params"])

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return int(self.total["weight_memory"])

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache in the scenario."""
        return int(self.total["kv_memory"])

    @property
    def memory(self) -> int:
        """Bytes of weights and cache together."""
        return int(self.total["memory"])


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
    attention, ffn = block_config.attention, block_config.ffn
    if half == "attention":
        spec = family.cache_spec(config, block_config, layer_index)
        cache = spec.bytes(scenario.length, dtype_bytes(scenario.cache_dtype)) * scenario.batch_size
        heads = attention.num_key_value_heads or 0
        return _costs(
            weights.params, weights.bytes, cache=cache, kv_heads=heads, attention_layers=not attention.removed
        )
    experts = ffn.moe.num_local_experts if ffn.moe else 0
    active = active_params(tensors, ffn.moe)
    return _costs(weights.params, weights.bytes, active=active, ffn_layers=not ffn.removed, experts=experts)


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
    weights = non_block_cost(tensors, tied=tied, num_layers=num_layers, dtype=scenario.weight_dtype)
    return _costs(weights.params, weights.bytes)


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


def _costs(
    params: int, weight_bytes: int, *, active: float | None = None, cache: int = 0, **counts: float
) -> CandidateCosts:
    values = {
        "params": params,
        "active_params": params if active is None else active,
        "weight_memory": weight_bytes,
        "kv_memory": cache,
        "memory": weight_bytes + cache,
        **counts,
    }
    return {name: float(values.get(name, 0)) for name, about in cost_names().items() if not about.measured}
