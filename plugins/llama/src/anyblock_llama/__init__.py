"""AnyBlock adapter for Llama models (`model_type` llama)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.descriptors import DenseDescriptor
from anyblock.hookspecs import hookimpl

if TYPE_CHECKING:
    from transformers import LlamaConfig

__all__ = ["LlamaDescriptor"]


class LlamaDescriptor(DenseDescriptor):
    """Llama 1 to 3.3 and every model of the same layout: dense, pre-norm, grouped-query attention, gated MLP."""

    decoder_layer = "transformers.models.llama.modeling_llama.LlamaDecoderLayer"

    @hookimpl
    def conformance_config(self) -> LlamaConfig:
        """See `FamilySpec.conformance_config`: the optional attention and MLP biases are on."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=128,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
        )
