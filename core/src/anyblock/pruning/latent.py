"""Removing heads of a multi-head latent attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import Half, PruningMixIn, Repair
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis
from anyblock.errors import UsageError
from anyblock.importance.kv_heads import IndependentKvHeadContributionHook


@dataclass(frozen=True, kw_only=True)
class LatentHeadsLayerDescriptor:
    """The tensors of a latent attention, as far as its heads are concerned.

    Args:
        o_proj_name: module path of the output projection inside the decoder layer, `self_attn.o_proj`.
        attn_prefix_name: checkpoint prefix of the attention, `model.layers.{layer_idx}.self_attn`.
        query_names: projections to the queries' heads; a layer has one of them.
        key_value_name: the projection from the latent vector to every head's keys and values.
        output_name: the output projection.
    """

    o_proj_name: str = "self_attn.o_proj"
    attn_prefix_name: str = "model.layers.{layer_idx}.self_attn"
    query_names: tuple[str, ...] = ("q_proj", "q_b_proj")
    key_value_name: str = "kv_b_proj"
    output_name: str = "o_proj"

    def tensor_name(self, layer_index: int, linear: str) -> str:
        """Return the checkpoint name of a projection's weight."""
        return f"{self.attn_prefix_name.format(layer_idx=layer_index)}.{linear}.weight"


class LatentHeadsPruningMixIn(PruningMixIn):
    """Keep the best heads: their queries, their part of the map from the latent vector, and their output columns.

    Every head has keys and values of its own, computed from a latent vector that all share and that alone is cached, so
    the cache stays as it is. The number of heads is the block's `num_attention_heads`, which the family has to state.
    """

    kind: ClassVar[str] = "query_groups"
    half: ClassVar[Half] = "attention"
    repair: ClassVar[Repair] = "one_map"
    layer_descriptor: LatentHeadsLayerDescriptor

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: attention that states its heads."""
        return block.attention.num_attention_heads is not None

    def size(self, block: BlockConfig) -> int:
        """Return the number of heads."""
        heads = block.attention.num_attention_heads
        if heads is None:
            raise UsageError(f"{self.kind}: the block states no heads", expected="attention.num_attention_heads")
        return heads

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return every number of heads from 1 on."""
        return range(1, self.size(block) + 1)

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return (IndependentKvHeadContributionHook,)

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the output projection."""
        return self.layer_descriptor.o_proj_name

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """See `PruningMixIn.axes`."""
        names, plain, value = self.layer_descriptor, int(config.qk_nope_head_dim), int(config.v_head_dim)
        query = (Segment(plain + int(config.qk_rope_head_dim)),)
        key_value, written = (Segment(plain + value),), (Segment(value, silence=Silence.ZERO),)
        return (
            TensorAxis(names.tensor_name(layer_index, names.output_name), 1, written, required=True),
            TensorAxis(names.tensor_name(layer_index, names.key_value_name), 0, key_value, required=True),
            *(TensorAxis(names.tensor_name(layer_index, name), 0, query) for name in names.query_names),
        )

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block.with_attention(num_attention_heads=size)

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        return f"1 to {self.size(block)} heads"
