"""AnyBlock adapter for Command R7B, Command A and Aya models (`model_type` cohere2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import Cohere2Config

__all__ = ["Cohere2Descriptor"]


class Cohere2Descriptor(DenseDescriptor):
    """Command R7B and A, Tiny Aya: both halves read one norm side by side, which belongs to neither."""

    decoder_layer = "transformers.models.cohere2.modeling_cohere2.Cohere2DecoderLayer"
    attention_norms = ffn_norms = ()
    other = ("input_layernorm",)
    not_implemented = ("hidden_size",)  # norms subtract the mean over all channels

    @hookimpl
    def conformance_config(self) -> Cohere2Config:
        """See `FamilySpec.conformance_config`: layers of both kinds, and biases."""
        from transformers import Cohere2Config

        layers = ["sliding_attention", "full_attention", "sliding_attention"]
        options = {"attention_bias": True, "sliding_window": 7, "layer_types": layers, "eos_token_id": 127}
        return Cohere2Config(**TINY_SIZES, **options, head_dim=8)
