"""AnyBlock adapter for OLMoE models (`model_type` olmoe)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, SparseDescriptor

if TYPE_CHECKING:
    from transformers import OlmoeConfig

__all__ = ["OlmoeDescriptor"]


class OlmoeDescriptor(SparseDescriptor):
    """OLMoE: queries and keys are normed over the width of all heads together."""

    decoder_layer = "transformers.models.olmoe.modeling_olmoe.OlmoeDecoderLayer"
    experts = "num_experts"
    expert_width = "intermediate_size"
    not_implemented = ("query_groups", "hidden_size")  # transformers builds the query norm as wide as the hidden size

    @hookimpl
    def conformance_config(self) -> OlmoeConfig:
        """See `FamilySpec.conformance_config`: attention biases are on, and queries, keys and values are clipped."""
        from transformers import OlmoeConfig

        experts = {"num_experts": 4, "num_experts_per_tok": 2}
        return OlmoeConfig(**TINY_SIZES, **experts, attention_bias=True, clip_qkv=1.0, pad_token_id=0)
