"""The base for dense decoders: `layers.N.self_attn.{q,k,v,o}_proj`, `mlp.{gate,up,down}_proj` and two pre-norms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.capabilities import Capability
from anyblock.descriptors.base import DescriptorBase, full, unsupported
from anyblock.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import nn

    from anyblock.costs.cache import CacheSpec
    from anyblock.pruning.mixin import PruningMixIn


class DenseDescriptor(DescriptorBase):
    """Hooks for a dense pre-norm decoder whose layers have an attention module and a gated MLP.

    Class attributes beyond those of `DescriptorBase`:
        attention, ffn: the names of the two modules inside a layer.
        attention_norms, ffn_norms: the norms that go with each half; all of a half's norms go when the half goes.
        attention_returns: how many values the attention module returns.
        ffn_returns: how many values the ffn module returns; 1 means a bare tensor.
    """

    attention: ClassVar[str] = "self_attn"
    ffn: ClassVar[str] = "mlp"
    attention_norms: ClassVar[tuple[str, ...]] = ("input_layernorm",)
    ffn_norms: ClassVar[tuple[str, ...]] = ("post_attention_layernorm",)
    attention_returns: ClassVar[int] = 2
    ffn_returns: ClassVar[int] = 1

    @hookimpl
    def layer_name_predicates(self, num_layers: int) -> dict[str, re.Pattern[str]]:
        """See `FamilySpec.layer_name_predicates`."""
        groups = self.outer_predicates()
        attention = "|".join(map(re.escape, (self.attention, *self.attention_norms)))
        ffn = "|".join(map(re.escape, (self.ffn, *self.ffn_norms)))
        for index in range(num_layers):
            layer = rf"{self.weights_prefix}\.{re.escape(self.layers)}\.{index}"
            groups[f"block_{index}_attention"] = re.compile(rf"{layer}\.(?:{attention})\..+")
            groups[f"block_{index}_ffn"] = re.compile(rf"{layer}\.(?:{ffn})\..+")
        return groups

    @hookimpl
    def create_block_configs(self, config: Any) -> list[BlockConfig]:
        """See `FamilySpec.create_block_configs`."""
        text = self.language_model_config(config)
        block = BlockConfig(
            attention=AttentionConfig(num_key_value_heads=text.num_key_value_heads),
            ffn=FFNConfig(intermediate_size=text.intermediate_size),
        )
        return [block] * text.num_hidden_layers

    @hookimpl
    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> Mapping[str, Any]:
        """See `FamilySpec.block_config_to_layer_overrides`."""
        values = {
            "num_key_value_heads": block_config.attention.num_key_value_heads,
            "num_attention_heads": block_config.attention.num_attention_heads,
            "intermediate_size": block_config.ffn.intermediate_size,
        }
        return {name: value for name, value in values.items() if value is not None}

    @hookimpl
    def attn_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.attn_no_op_post_init`."""
        from anyblock.modeling.no_op import NoOpAttention, remove_half

        no_op = NoOpAttention.replacing(getattr(decoder_layer, self.attention), returns=self.attention_returns)
        remove_half(decoder_layer, self.attention, no_op, self.attention_norms)
        return True

    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.mlp_no_op_post_init`."""
        from anyblock.modeling.no_op import NoOpFFN, remove_half

        remove_half(decoder_layer, self.ffn, NoOpFFN(returns=self.ffn_returns), self.ffn_norms)
        return True

    @hookimpl
    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
        """See `FamilySpec.cache_spec`."""
        from anyblock.costs.cache import attention_cache

        return attention_cache(self.language_model_config(config), block_config, layer_index)

    @hookimpl
    def pruning_mixins(self) -> Mapping[str, PruningMixIn]:
        """See `FamilySpec.pruning_mixins`."""
        from anyblock.pruning.layouts import dense_mixins

        return dense_mixins(layer=self.checkpoint_layer, attention=self.attention, ffn=self.ffn)

    @hookimpl
    def capabilities(self) -> Mapping[str, Capability]:
        """See `FamilySpec.capabilities`."""
        return {
            **full(
                "convert",
                "build",
                "attention_no_op",
                "ffn_no_op",
                "ffn_intermediate",
                "kv_heads",
                "query_groups",
                "search",
            ),
            **unsupported("experts_removal", "expert_intermediate", "mamba_heads"),
        }
