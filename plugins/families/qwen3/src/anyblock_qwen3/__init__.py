"""AnyBlock adapter for dense Qwen3 models (`model_type` qwen3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import Qwen3Config

__all__ = ["Qwen3Descriptor"]


class Qwen3Descriptor(DenseDescriptor):
    """Qwen3: norms on the queries and keys of each head, whose width does not follow from the hidden size."""

    decoder_layer = "transformers.models.qwen3.modeling_qwen3.Qwen3DecoderLayer"

    @hookimpl
    def conformance_config(self) -> Qwen3Config:
        """See `FamilySpec.conformance_config`: attention biases are on, the last two layers have a sliding window."""
        from transformers import Qwen3Config

        window = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
        return Qwen3Config(**TINY_SIZES, head_dim=16, attention_bias=True, **window)
