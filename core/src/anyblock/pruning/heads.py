"""Removing key-value heads, with or without the query heads that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from anyblock.checkpoint.config_view import layer_view
from anyblock.contract.blocks import BlockConfig
from anyblock.contract.cache_spec import head_width
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import Half, PruningMixIn, Repair
from anyblock.contract.tensor_axis import Role, Segment, Silence, TensorAxis, silenced
from anyblock.contract.tensor_select import Tensors, present
from anyblock.errors import CheckpointError, UsageError
from anyblock.importance.kv_heads import IndependentKvHeadContributionHook


@dataclass(frozen=True, kw_only=True)
class KVHeadsLayerDescriptor:
    """The tensors of an attention layer.

    Args:
        o_proj_name: module path of the output projection inside the decoder layer, `self_attn.o_proj`.
        attn_prefix_name: checkpoint prefix of the attention, `model.layers.{layer_idx}.self_attn`.
        qkvo_weight_names: the query, key, value and output projections below the prefix; with two names the first holds
            query, key and value rows one after another.
        qk_norm_names: norms on queries and keys; they are cut only when they span all heads.
        gate_names: linear modules with as many rows for each query head as the output projection has columns.
        head_row_names: tensors with one row for each query head, such as sinks.
        query_row_multiple: rows a query head has, in head widths (2 where each head's rows are query and gate).
        transposed: weights are stored `[in, out]` (GPT-2's `Conv1D`).
    """

    o_proj_name: str = "self_attn.o_proj"
    attn_prefix_name: str = "model.layers.{layer_idx}.self_attn"
    qkvo_weight_names: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm")
    gate_names: tuple[str, ...] = ()
    head_row_names: tuple[str, ...] = ("sinks",)
    query_row_multiple: int = 1
    transposed: bool = False

    def tensor_name(self, layer_index: int, part: str) -> str:
        """Return the checkpoint name of `part`, for instance `q_proj.weight`."""
        return f"{self.attn_prefix_name.format(layer_idx=layer_index)}.{part}"


class _HeadsMixIn(PruningMixIn):
    half: ClassVar[Half] = "attention"
    queries: ClassVar[Silence]
    layer_descriptor: KVHeadsLayerDescriptor

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: attention with key-value heads."""
        return bool(block.attention.num_key_value_heads)

    def size(self, block: BlockConfig) -> int:
        """Return the number of key-value heads."""
        heads = block.attention.num_key_value_heads
        if not heads:
            raise UsageError(f"{self.kind}: the block has no key-value heads", expected="attention.num_key_value_heads")
        return heads

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return (IndependentKvHeadContributionHook,)

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the output projection."""
        return self.layer_descriptor.o_proj_name

    def query_heads(self, block: BlockConfig, config: Any) -> int:
        """Return the block's number of query heads: its own, or the model's."""
        return block.attention.num_attention_heads or int(config.num_attention_heads)

    def group(self, block: BlockConfig, config: Any) -> int:
        """Return how many query heads read each key-value head.

        Raises:
            CheckpointError: the query heads cannot be shared out evenly.
        """
        queries, units = self.query_heads(block, config), self.size(block)
        if queries % units:
            raise CheckpointError(
                f"{self.kind}: {queries} query heads over {units} key-value heads",
                expected="a whole number of query heads for each key-value head",
            )
        return queries // units

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """See `PruningMixIn.axes`."""
        names, width, group = (
            self.layer_descriptor,
            head_width(layer_view(config, layer_index)),
            self.group(block, config),
        )
        rows, columns = (1, 0) if names.transposed else (0, 1)
        # A norm over all heads sees the removed ones, so their rows are zero in front of it.
        query = Segment(group * width * names.query_row_multiple, "query", self.queries)
        key, value = Segment(width, silence=Silence.ZERO), Segment(width)
        *inputs, output = names.qkvo_weight_names
        parts = [(query,), (key,), (value,)] if len(inputs) == 3 else [(query, key, value)]
        written = Segment(group * width, "query", Silence.ZERO)
        result = [TensorAxis(names.tensor_name(layer_index, f"{output}.weight"), columns, (written,), required=True)]
        optional = inputs[2:] if getattr(config, "attention_k_eq_v", False) else ()  # layers whose keys are the values
        for linear, segments in zip(inputs, parts, strict=True):
            weight, required = names.tensor_name(layer_index, f"{linear}.weight"), linear not in optional
            result.append(TensorAxis(weight, rows, segments, required=required))
            result.append(TensorAxis(names.tensor_name(layer_index, f"{linear}.bias"), 0, segments))
        gates = [(f"{gate}.{part}", group * width) for gate in names.gate_names for part in ("weight", "bias")]
        for name, length in gates + [(name, group) for name in names.head_row_names]:
            result.append(TensorAxis(names.tensor_name(layer_index, name), 0, (Segment(length, "query"),)))
        normed = Silence.KEEP if self.queries is Silence.KEEP else Silence.NORM
        norms = (Segment(group * width, "query", normed), Segment(width, silence=Silence.NORM))
        for name, segment in zip(names.qk_norm_names, norms, strict=True):
            result.append(
                TensorAxis(names.tensor_name(layer_index, f"{name}.weight"), 0, (segment,), only_if_full=True)
            )
        return tuple(result)


class KVHeadsPruningMixIn(_HeadsMixIn):
    """Keep the best key-value heads and every query head: the cache shrinks, query heads of removed groups fall silent.

    A child with `n'` of `n` heads has `r = n / n'` old groups for each head: the head's own, and `r - 1` removed ones
    whose output columns are zero (the reference's PruneKVHeads). The child equals the teacher without those groups, and
    training can wake the silent query heads again.
    """

    kind: ClassVar[str] = "kv_heads"
    repair: ClassVar[Repair] = "one_map"
    queries: ClassVar[Silence] = Silence.KEEP

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return the divisors of the number of heads: every kept head serves equally many groups."""
        units = self.size(block)
        return [size for size in range(1, units + 1) if units % size == 0]

    def narrow(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, child: BlockConfig, config: Any
    ) -> dict[str, torch.Tensor]:
        """See `PruningMixIn.narrow`; keys and values are views, query rows and output columns are rearranged copies."""
        units, size = self.size(block), self._child_size(block, child, config)
        groups = regrouped(units, size)
        chosen: dict[Role, torch.Tensor] = {"unit": torch.arange(size), "query": groups}
        result = self._select(layer_index, tensors, block, config, chosen)
        output = self.axes(layer_index, block, config)[0]
        silent = (groups >= size).nonzero().squeeze(1)
        result[output.name] = silenced(result[output.name], output, units, silent)
        return result

    def places(self, block: BlockConfig, size: int) -> torch.Tensor:
        """See `PruningMixIn.places`: each kept group is followed by the silent ones that joined it."""
        return torch.arange(size) * (self.size(block) // size)

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block.with_attention(num_key_value_heads=size)

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        return f"a divisor of {self.size(block)}"


class QueryGroupsPruningMixIn(_HeadsMixIn):
    """Keep the best key-value heads together with the query heads that read them; output columns go as well."""

    kind: ClassVar[str] = "query_groups"
    repair: ClassVar[Repair] = "one_map"
    nests: ClassVar[bool] = True
    queries: ClassVar[Silence] = Silence.ZERO

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return every number of heads from 1 on."""
        return range(1, self.size(block) + 1)

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        group = self.group(block, config)
        return block.with_attention(num_key_value_heads=size, num_attention_heads=size * group)

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        return f"1 to {self.size(block)} key-value heads"


def regrouped(units: int, size: int) -> torch.Tensor:
    """Return the order of query groups for `size` kept heads: each kept one, then `units / size - 1` removed ones."""
    removed = torch.arange(size, units).reshape(size, -1)
    return torch.cat([torch.arange(size).unsqueeze(1), removed], dim=1).reshape(-1)


POOLING: Final[Mapping[str, Callable[[torch.Tensor, int], torch.Tensor]]] = {
    "average": lambda heads, dim: heads.mean(dim=dim),
    "first": lambda heads, dim: heads.select(dim, 0),
}
"""How a head of the child is made from the teacher's heads that it stands for, by the names that configurations use."""


def pool_heads(
    mixin: PruningMixIn,
    how: str,
    layer_index: int,
    tensors: Tensors,
    block: BlockConfig,
    child: BlockConfig,
    config: Any,
) -> dict[str, torch.Tensor]:
    """Make every key-value head of the child from all of the teacher's heads that it stands for; no head is chosen.

    Args:
        mixin: the family's mixin for `kv_heads`.
        how: a key of `POOLING`.
        layer_index: the block's index.
        tensors: the attention's tensors by checkpoint name, as the teacher has them.
        block: the teacher's block config.
        child: the child's block config.
        config: the configuration of the language model.

    Raises:
        UsageError: the mixin is of another kind, or the child's size is not legal.
        CheckpointError: a tensor is missing or has a shape that does not fit.
    """
    if mixin.kind != KVHeadsPruningMixIn.kind:
        raise UsageError(f"the units of {mixin.kind} cannot be pooled", expected=f"the kind {KVHeadsPruningMixIn.kind}")
    units, size = mixin.size(block), mixin.size(child)
    mixin.check_size(block, size, config)
    result = dict(tensors)
    for axis in present(mixin.axes(layer_index, block, config), result, units):
        if all(segment.role == "query" for segment in axis.segments):
            continue
        parts = []
        for start, segment in axis.placed(units):
            part = result[axis.name].narrow(axis.dim, start, segment.length(units))
            if segment.role == "unit":
                rest = part.shape[axis.dim + 1 :]
                heads = part.reshape(*part.shape[: axis.dim], size, units // size, segment.width, *rest)
                part = POOLING[how](heads, axis.dim + 1).flatten(axis.dim, axis.dim + 1)
            parts.append(part)
        result[axis.name] = torch.cat(parts, dim=axis.dim)
    return result
