"""The base for hybrid decoders whose layers have one mixer each: Mamba, attention, a dense FFN, or experts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MambaConfig
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.sparse import SparseDescriptor

if TYPE_CHECKING:
    from torch import nn

    from anyblock.contract.cache_spec import CacheSpec
    from anyblock.contract.pruning_mixin import PruningMixIn

Mixer = Literal["mamba", "attention", "dense", "experts"]


class HybridDescriptor(SparseDescriptor):
    """Hooks for a decoder whose layers are a norm and one mixer each.

    A layer is half a block: where its mixer is a Mamba or an attention, the ffn is a no-op from the start, and where it is
    a dense FFN or experts, the attention is.

    Class attributes beyond those of `SparseDescriptor`:
        mixers: what the names of layer types mean.
        layer_types: the config's attribute with the name of every layer's type.
        layer_type: the attribute of a built layer with the name of its type.
        mamba_sizes: the config's attributes with the sizes of a Mamba, by the field of `MambaConfig`.
        conv_kernel: the config's attribute with the width of a Mamba's convolution.
    """

    attention: ClassVar[str] = "mixer"
    ffn: ClassVar[str] = "mixer"
    attention_norms: ClassVar[tuple[str, ...]] = ("norm",)
    ffn_norms: ClassVar[tuple[str, ...]] = ("norm",)
    mixers: ClassVar[Mapping[str, Mixer]]
    layer_types: ClassVar[str] = "layer_types"
    layer_type: ClassVar[str] = "layer_type"
    mamba_sizes: ClassVar[Mapping[str, str]]
    conv_kernel: ClassVar[str] = "conv_kernel"

    def layer_mixers(self, text_config: Any) -> list[Mixer]:
        """Return what the mixer of every layer of the unpruned model is."""
        return [self.mixers[name] for name in getattr(text_config, self.layer_types)]

    @hookimpl  # a hook asks for the arguments that it needs, here for more than the base's
    def layer_name_predicates(self, num_layers: int, config: Any) -> dict[str, re.Pattern[str]]:  # type: ignore[override]
        """See `FamilySpec.layer_name_predicates`."""
        groups = self.outer_predicates()
        for index, mixer in enumerate(self.layer_mixers(self.language_model_config(config))):
            layer = rf"{self.weights_prefix}\.{re.escape(self.layers)}\.{index}"
            groups[f"block_{index}_{_half(mixer)}"] = re.compile(rf"{layer}\..+")
        return groups

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DenseDescriptor.layout_mixins`."""
        from anyblock.pruning.layouts import mamba_mixins

        groups = self.mamba_sizes["num_groups"]
        return {**super().layout_mixins(), **mamba_mixins(self.checkpoint_layer, self.attention, groups=groups)}

    def attention_config(self, text_config: Any, layer_index: int) -> AttentionConfig:
        """See `DenseDescriptor.attention_config`."""
        mixer = self.layer_mixers(text_config)[layer_index]
        if mixer == "mamba":
            sizes = {field: getattr(text_config, name) for field, name in self.mamba_sizes.items()}
            return AttentionConfig(mamba=MambaConfig(**sizes))
        if mixer == "attention":
            return super().attention_config(text_config, layer_index)
        return AttentionConfig(no_op=True)

    def ffn_config(self, text_config: Any, layer_index: int) -> FFNConfig:
        """See `DenseDescriptor.ffn_config`."""
        if _half(self.layer_mixers(text_config)[layer_index]) == "attention":
            return FFNConfig(no_op=True)
        return super().ffn_config(text_config, layer_index)

    def is_sparse(self, text_config: Any, layer_index: int) -> bool:
        """See `SparseDescriptor.is_sparse`."""
        return self.layer_mixers(text_config)[layer_index] == "experts"

    @hookimpl
    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> Mapping[str, Any]:
        """See `FamilySpec.block_config_to_layer_overrides`."""
        values = dict(super().block_config_to_layer_overrides(block_config))
        if mamba := block_config.attention.mamba:
            values.update({name: getattr(mamba, field) for field, name in self.mamba_sizes.items()})
        return values

    @hookimpl
    def attn_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.attn_no_op_post_init`: an attention or a Mamba; a layer with another mixer has none."""
        return self._remove(decoder_layer, "attention")

    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.mlp_no_op_post_init`: a dense FFN or experts; a layer with another mixer has none."""
        return self._remove(decoder_layer, "ffn")

    def _remove(self, decoder_layer: nn.Module, half: str) -> bool:
        from anyblock.modeling.no_op import NoOpAttention, NoOpFFN, NoOpTypedNorm

        mixer = self.mixers[getattr(decoder_layer, self.layer_type)]
        if _half(mixer) != half:
            return True
        no_op: nn.Module = NoOpFFN()
        if mixer == "attention":
            no_op = NoOpAttention.replacing(getattr(decoder_layer, self.attention), returns=self.attention_returns)
        setattr(decoder_layer, self.attention, no_op)
        for name in self.attention_norms:
            setattr(decoder_layer, name, NoOpTypedNorm(getattr(decoder_layer, name)))
        return True

    @hookimpl
    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
        """See `FamilySpec.cache_spec`."""
        from anyblock.descriptors.cache import mamba_cache

        if mamba := block_config.attention.mamba:
            return mamba_cache(mamba, getattr(self.language_model_config(config), self.conv_kernel))
        return super().cache_spec(config, block_config, layer_index)


def _half(mixer: Mixer) -> Literal["attention", "ffn"]:
    return "attention" if mixer in ("mamba", "attention") else "ffn"
