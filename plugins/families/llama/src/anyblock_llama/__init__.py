"""AnyBlock adapter for Llama models (`model_type` llama)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

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

        return LlamaConfig(**TINY_SIZES, attention_bias=True, mlp_bias=True)
