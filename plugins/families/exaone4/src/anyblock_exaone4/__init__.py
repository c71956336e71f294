"""AnyBlock adapter for EXAONE 4.0 models (`model_type` exaone4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import Exaone4Config

__all__ = ["Exaone4Descriptor"]


class Exaone4Descriptor(DenseDescriptor):
    """EXAONE 4.0: a norm after each half, norms on the heads' queries and keys, sliding-window and full layers."""

    decoder_layer = "transformers.models.exaone4.modeling_exaone4.Exaone4DecoderLayer"
    attention_norms, ffn_norms = ("post_attention_layernorm",), ("post_feedforward_layernorm",)

    @hookimpl
    def conformance_config(self) -> Exaone4Config:
        """See `FamilySpec.conformance_config`: layers of both kinds."""
        from transformers import Exaone4Config

        layers = ["sliding_attention", "full_attention", "sliding_attention"]
        return Exaone4Config(**TINY_SIZES, head_dim=8, sliding_window=7, layer_types=layers)
