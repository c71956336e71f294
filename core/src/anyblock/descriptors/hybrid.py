"""The base for hybrid decoders whose layers have one mixer each: Mamba, attention, a dense FFN, or experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.layout import HalfLayout, Size
from anyblock.descriptors.sparse import SparseDescriptor

if TYPE_CHECKING:
    from anyblock.contract.cache_spec import CacheSpec
    from anyblock.contract.pruning_mixin import PruningMixIn

Mixer = Literal["mamba", "attention", "dense", "experts"]


class HybridDescriptor(SparseDescriptor, declares=True):
    """Hooks for a decoder whose layers are a norm and one mixer each.

    A layer is half a block: where its mixer is a Mamba or an attention, the ffn is a no-op from the start, and where it is
    a dense FFN or experts, the attention is. `attention_by` and `ffn_by` name one list, that of the layers' types.

    Class attributes beyond those of `SparseDescriptor`:
        mixers: what the names of layer types mean.
        mamba_sizes: where the sizes of a Mamba come from, by the fields of `MambaConfig`.
        conv_kernel: the config's attribute with the width of a Mamba's convolution.
    """

    attention: ClassVar[str] = "mixer"
    ffn: ClassVar[str] = "mixer"
    attention_norms: ClassVar[tuple[str, ...]] = ("norm",)
    ffn_norms: ClassVar[tuple[str, ...]] = ("norm",)
    attention_by: ClassVar[str | None] = "layer_types"
    ffn_by: ClassVar[str | None] = "layer_types"
    layer_type: ClassVar[str | None] = "layer_type"
    mixers: ClassVar[Mapping[str, Mixer]]
    mamba_sizes: ClassVar[Mapping[str, Size]]
    conv_kernel: ClassVar[str] = "conv_kernel"

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`."""
        layouts: dict[Mixer, HalfLayout] = {
            "attention": self.softmax_layout(),
            "mamba": HalfLayout(
                names=(self.attention, *self.attention_norms),
                zeros={self.attention: 1},
                norms=self.attention_norms,
                sizes=self.mamba_sizes,
            ),
        }
        if half != "attention":
            layouts = {"dense": self.ffn_layout(self.ffn_sizes), "experts": self.ffn_layout(self.expert_sizes())}
        return {name: layouts[mixer] for name, mixer in self.mixers.items() if mixer in layouts}

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`."""
        from anyblock.pruning.layouts import mamba_mixins

        groups = self.mamba_sizes["num_groups"].attribute
        return {**super().layout_mixins(), **mamba_mixins(self.checkpoint_layer, self.attention, groups=groups)}

    @hookimpl
    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
        """See `FamilySpec.cache_spec`."""
        from anyblock.descriptors.cache import mamba_cache

        if mamba := block_config.attention.mamba:
            return mamba_cache(mamba, getattr(self.language_model_config(config), self.conv_kernel))
        return super().cache_spec(config, block_config, layer_index)
