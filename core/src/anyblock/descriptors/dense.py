"""The base for dense decoders: `layers.N.self_attn.{q,k,v,o}_proj`, `mlp.{gate,up,down}_proj` and two pre-norms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.contract.capabilities import CAPABILITIES, Capability, Support
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.base import ROTARY_BUFFER, DescriptorBase, full, not_implemented, unsupported

if TYPE_CHECKING:
    from torch import nn

    from anyblock.contract.cache_spec import CacheSpec
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.contract.residual_pruning import ResidualPruning
    from anyblock.pruning.ffn import GateUp


class DenseDescriptor(DescriptorBase):
    """Hooks for a decoder whose layers have an attention module and a gated MLP, each with norms of its own.

    Class attributes beyond those of `DescriptorBase`:
        attention, ffn: the names of the two modules inside a layer.
        checkpoint_ffn: the second one's name in *checkpoint* names where it differs.
        attention_norms, ffn_norms: the norms that go with each half; all of a half's norms go when the half goes.
        attention_returns: how many values the attention module returns.
        ffn_returns: how many values the ffn module returns; 1 means a bare tensor.
        attention_linears: query, key, value and output projection; two names where the first holds the other three.
        ffn_linears: the input projections and, last, the output projection.
        fused_gate_up: how one input projection holds gate and up; None where they are two.
        kinds: the pruning kinds that the architecture has.
        not_implemented: those among them that the adapter does not offer, perhaps each with the reason, `{kind: reason}`.
    """

    attention: ClassVar[str] = "self_attn"
    ffn: ClassVar[str] = "mlp"
    checkpoint_ffn: ClassVar[str | None] = None
    attention_norms: ClassVar[tuple[str, ...]] = ("input_layernorm",)
    ffn_norms: ClassVar[tuple[str, ...]] = ("post_attention_layernorm",)
    attention_returns: ClassVar[int] = 2
    ffn_returns: ClassVar[int] = 1
    attention_linears: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj")
    ffn_linears: ClassVar[tuple[str, ...]] = ("gate_proj", "up_proj", "down_proj")
    fused_gate_up: ClassVar[GateUp | None] = None
    kinds: ClassVar[tuple[str, ...]] = ("ffn_intermediate", "kv_heads", "query_groups", "hidden_size")
    not_implemented: ClassVar[tuple[str, ...] | Mapping[str, str]] = ()

    @property
    def stored_ffn(self) -> str:
        """The ffn module's name in checkpoint names."""
        return self.checkpoint_ffn or self.ffn

    @property
    def offered_kinds(self) -> tuple[str, ...]:
        """The pruning kinds that the adapter offers."""
        return tuple(kind for kind in self.kinds if kind not in self.not_implemented)

    @property
    def _reasons(self) -> Mapping[str, str]:
        return self.not_implemented if isinstance(self.not_implemented, Mapping) else {}

    @hookimpl
    def layer_name_predicates(self, num_layers: int) -> dict[str, re.Pattern[str]]:
        """See `FamilySpec.layer_name_predicates`."""
        groups = self.outer_predicates()
        attention = "|".join(map(re.escape, (self.attention, *self.attention_norms)))
        ffn = "|".join(map(re.escape, (self.stored_ffn, *self.ffn_norms)))
        for index in range(num_layers):
            layer = rf"{self.weights_prefix}\.{re.escape(self.layers)}\.{index}"
            groups[f"block_{index}_attention"] = re.compile(rf"{layer}\.(?!.+{ROTARY_BUFFER}$)(?:{attention})\..+")
            groups[f"block_{index}_ffn"] = re.compile(rf"{layer}\.(?:{ffn})\..+")
        return groups

    @hookimpl
    def create_block_configs(self, config: Any) -> list[BlockConfig]:
        """See `FamilySpec.create_block_configs`."""
        text = self.language_model_config(config)
        return [
            BlockConfig(attention=self.attention_config(text, index), ffn=self.ffn_config(text, index))
            for index in range(text.num_hidden_layers)
        ]

    def attention_config(self, text_config: Any, layer_index: int) -> AttentionConfig:
        """Return the attention of one layer of the unpruned model."""
        return AttentionConfig(num_key_value_heads=text_config.num_key_value_heads)

    def ffn_config(self, text_config: Any, layer_index: int) -> FFNConfig:
        """Return the ffn of one layer of the unpruned model."""
        return FFNConfig(intermediate_size=text_config.intermediate_size)

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
        from anyblock.descriptors.cache import attention_cache

        return attention_cache(self.language_model_config(config), block_config, layer_index)

    @hookimpl
    def pruning_mixins(self) -> Mapping[str, PruningMixIn]:
        """See `FamilySpec.pruning_mixins`."""
        layout = self.layout_mixins()
        return {kind: layout[kind] for kind in self.offered_kinds if kind != "hidden_size"}

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """Return a mixin for every kind of pruning that the layout allows, offered or not."""
        from anyblock.pruning.layouts import attention_mixins, ffn_mixins

        return {
            **attention_mixins(self.checkpoint_layer, self.attention, linears=self.attention_linears),
            **ffn_mixins(
                self.checkpoint_layer, self.stored_ffn, linears=self.ffn_linears, fused_gate_up=self.fused_gate_up
            ),
        }

    @hookimpl
    def residual_stream(self) -> ResidualPruning | None:
        """See `FamilySpec.residual_stream`."""
        if "hidden_size" not in self.offered_kinds:
            return None
        from anyblock.pruning.residual import RMSNormStream

        readers, writers = self.stream_linears()
        fused_readers, fused_writers = self.fused_stream_tensors()
        return RMSNormStream(
            self.checkpoint_prefix or self.decoder_prefix,
            self.attention,
            self.stored_ffn,
            readers=readers,
            writers=writers,
            norms=(*self.attention_norms, *self.ffn_norms),
            fused_readers=fused_readers,
            fused_writers=fused_writers,
        )

    def fused_stream_tensors(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return tensors that all experts share, with the dimension that reads the residual stream, or that writes to it."""
        return {}, {}

    def stream_linears(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the linear modules that read the residual stream, and of those that write to it."""
        *attention_inputs, attention_output = self.attention_linears
        *ffn_inputs, ffn_output = self.ffn_linears
        return (*attention_inputs, *ffn_inputs), (attention_output, ffn_output)

    @hookimpl
    def capabilities(self) -> Mapping[str, Capability]:
        """See `FamilySpec.capabilities`."""
        return {
            **unsupported(*CAPABILITIES),
            **full("convert", "build", "attention_no_op", "ffn_no_op", "search", *self.offered_kinds),
            **not_implemented(*self.not_implemented),
            **{name: Capability(Support.NOT_IMPLEMENTED, reason) for name, reason in self._reasons.items()},
        }
