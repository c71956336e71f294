"""AnyBlock adapter for SmolLM3 models (`model_type` smollm3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import SmolLM3Config

__all__ = ["SmolLM3Descriptor"]


class SmolLM3Descriptor(DenseDescriptor):
    """SmolLM3: as Llama, but some layers have no rotary embedding, and some may have a sliding window."""

    decoder_layer = "transformers.models.smollm3.modeling_smollm3.SmolLM3DecoderLayer"

    @hookimpl
    def conformance_config(self) -> SmolLM3Config:
        """See `FamilySpec.conformance_config`: a layer without rotary embedding, sliding windows, biases."""
        from transformers import SmolLM3Config

        options = {"attention_bias": True, "mlp_bias": True, "use_sliding_window": True, "sliding_window": 7}
        tokens = {"pad_token_id": 125, "bos_token_id": 126, "eos_token_id": 127}
        return SmolLM3Config(**TINY_SIZES, **options, **tokens, no_rope_layers=[1, 0, 1])
