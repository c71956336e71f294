"""AnyBlock adapter for Olmo 3 models (`model_type` olmo3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import Olmo3Config

__all__ = ["Olmo3Descriptor"]


class Olmo3Descriptor(DenseDescriptor):
    """Olmo 3: a norm after each half, norms over all queries and all keys, sliding-window and full layers."""

    decoder_layer = "transformers.models.olmo3.modeling_olmo3.Olmo3DecoderLayer"
    attention_norms, ffn_norms = ("post_attention_layernorm",), ("post_feedforward_layernorm",)

    @hookimpl
    def conformance_config(self) -> Olmo3Config:
        """See `FamilySpec.conformance_config`: layers of both kinds, and biases."""
        from transformers import Olmo3Config

        layers = ["sliding_attention", "full_attention", "sliding_attention"]
        return Olmo3Config(**TINY_SIZES, attention_bias=True, sliding_window=7, layer_types=layers, eos_token_id=127)
