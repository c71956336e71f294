"""AnyBlock adapter for Qwen2 and Qwen2.5 models (`model_type` qwen2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import Qwen2Config

__all__ = ["Qwen2Descriptor"]


class Qwen2Descriptor(DenseDescriptor):
    """Qwen2 and Qwen2.5: biases on queries, keys and values; the small models tie their embeddings."""

    decoder_layer = "transformers.models.qwen2.modeling_qwen2.Qwen2DecoderLayer"

    @hookimpl
    def conformance_config(self) -> Qwen2Config:
        """See `FamilySpec.conformance_config`: the last two layers have a sliding window."""
        from transformers import Qwen2Config

        return Qwen2Config(**TINY_SIZES, use_sliding_window=True, sliding_window=7, max_window_layers=1)
