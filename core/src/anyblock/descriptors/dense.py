"""The base for dense decoders: `layers.N.self_attn.{q,k,v,o}_proj`, `mlp.{gate,up,down}_proj` and two pre-norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from anyblock.contract.blocks import HALVES
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.base import DescriptorBase
from anyblock.descriptors.layout import HalfLayout, Size

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.contract.residual_pruning import ResidualPruning


class DenseDescriptor(DescriptorBase, declares=True):
    """Hooks for a decoder whose layers have an attention module and a gated MLP, each with norms of its own.

    From these class attributes, beyond those of `DescriptorBase`, one `HalfLayout` is made for each half:
        attention, ffn: the names of the two modules inside a layer.
        checkpoint_ffn: the second one's name in *checkpoint* names where it differs.
        attention_norms, ffn_norms: the norms that go with each half; all of a half's norms go when the half goes.
        attention_returns: how many values the attention module returns.
        ffn_returns: how many values the ffn module returns; 1 means a bare tensor.
        attention_sizes, ffn_sizes: where the two halves' sizes come from, by the fields of block configs.
        attention_linears: query, key, value and output projection; two names where the first holds the other three.
        ffn_linears: the input projections and, last, the output projection.
        fused_gate_up: how one input projection holds gate and up; None where they are two.
        stream_multiple: see `RMSNormStream.multiple`.
    """

    attention: ClassVar[str] = "self_attn"
    ffn: ClassVar[str] = "mlp"
    checkpoint_ffn: ClassVar[str | None] = None
    attention_norms: ClassVar[tuple[str, ...]] = ("input_layernorm",)
    ffn_norms: ClassVar[tuple[str, ...]] = ("post_attention_layernorm",)
    attention_returns: ClassVar[int] = 2
    ffn_returns: ClassVar[int] = 1
    attention_sizes: ClassVar[Mapping[str, Size]] = {"num_key_value_heads": Size("num_key_value_heads")}
    ffn_sizes: ClassVar[Mapping[str, Size]] = {"intermediate_size": Size("intermediate_size")}
    attention_linears: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj")
    ffn_linears: ClassVar[tuple[str, ...]] = ("gate_proj", "up_proj", "down_proj")
    fused_gate_up: ClassVar[Literal["halves", "interleaved"] | None] = None
    stream_multiple: ClassVar[int] = 1

    @property
    def stored_ffn(self) -> str:
        """The ffn module's name in checkpoint names."""
        return self.checkpoint_ffn or self.ffn

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`."""
        return {half: self.softmax_layout() if half == "attention" else self.ffn_layout(self.ffn_sizes)}

    def softmax_layout(self) -> HalfLayout:
        """Return the layout of a softmax attention."""
        return HalfLayout(
            names=(self.attention, *self.attention_norms),
            attentions={self.attention: self.attention_returns},
            norms=self.attention_norms,
            sizes=self.attention_sizes,
        )

    def ffn_layout(self, sizes: Mapping[str, Size]) -> HalfLayout:
        """Return the layout of an ffn of these sizes."""
        return HalfLayout(
            names=(self.stored_ffn, *self.ffn_norms),
            zeros={self.ffn: self.ffn_returns},
            norms=self.ffn_norms,
            sizes=sizes,
        )

    def has(self, size: str) -> bool:
        """Return whether some kind of half has this size, a field of block configs."""
        return any(size in kind.sizes for half in HALVES for kind in self.half_kinds(half).values())

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`."""
        from anyblock.pruning.layouts import attention_mixins, ffn_mixins

        found: dict[str, PruningMixIn] = {}
        if self.has("num_key_value_heads"):
            found |= attention_mixins(self.checkpoint_layer, self.attention, linears=self.attention_linears)
        if self.has("intermediate_size"):
            found |= ffn_mixins(
                self.checkpoint_layer, self.stored_ffn, linears=self.ffn_linears, fused_gate_up=self.fused_gate_up
            )
        return found

    @hookimpl
    def residual_stream(self) -> ResidualPruning | None:
        """See `FamilySpec.residual_stream`."""
        if not self.offers("hidden_size"):
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
            multiple=self.stream_multiple,
        )

    def fused_stream_tensors(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return tensors that all experts share, with the dimension that reads the residual stream, or that writes to it."""
        return {}, {}

    def stream_linears(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the linear modules that read the residual stream, and of those that write to it."""
        *attention_inputs, attention_output = self.attention_linears
        *ffn_inputs, ffn_output = self.ffn_linears
        return (*attention_inputs, *ffn_inputs), (attention_output, ffn_output)
