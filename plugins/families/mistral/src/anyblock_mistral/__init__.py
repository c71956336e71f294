"""AnyBlock adapter for Mistral models (`model_type` mistral and ministral)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import MinistralConfig, MistralConfig

__all__ = ["MinistralDescriptor", "MistralDescriptor"]


class MistralDescriptor(DenseDescriptor):
    """Mistral 7B, Nemo and Small: a head width of its own, and in some models a sliding window in every layer."""

    decoder_layer = "transformers.models.mistral.modeling_mistral.MistralDecoderLayer"

    @hookimpl
    def conformance_config(self) -> MistralConfig:
        """See `FamilySpec.conformance_config`: heads are wider than hidden size over heads, and the window is short."""
        from transformers import MistralConfig

        return MistralConfig(**TINY_SIZES, head_dim=16, sliding_window=7)


class MinistralDescriptor(DenseDescriptor):
    """Ministral 8B: as Mistral, with full and sliding-window layers by turns."""

    decoder_layer = "transformers.models.ministral.modeling_ministral.MinistralDecoderLayer"

    @hookimpl
    def conformance_config(self) -> MinistralConfig:
        """See `FamilySpec.conformance_config`: both kinds of layers."""
        from transformers import MinistralConfig

        types = ["full_attention", "sliding_attention", "sliding_attention"]
        return MinistralConfig(**TINY_SIZES, head_dim=16, sliding_window=7, layer_types=types)
