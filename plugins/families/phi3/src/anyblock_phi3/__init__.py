"""AnyBlock adapter for Phi-3, Phi-3.5 and Phi-4 language models (`model_type` phi3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import Phi3Config

__all__ = ["Phi3Descriptor"]


class Phi3Descriptor(DenseDescriptor):
    """Phi-3 to Phi-4: queries, keys and values come from one linear map, and gate and up from another."""

    decoder_layer = "transformers.models.phi3.modeling_phi3.Phi3DecoderLayer"
    attention_linears = ("qkv_proj", "o_proj")
    ffn_linears = ("gate_up_proj", "down_proj")
    fused_gate_up = "halves"

    @hookimpl
    def conformance_config(self) -> Phi3Config:
        """See `FamilySpec.conformance_config`: a sliding window, and rotary embeddings on a part of each head."""
        from transformers import Phi3Config

        rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
        return Phi3Config(**TINY_SIZES, sliding_window=7, rope_parameters=rope, pad_token_id=0)
