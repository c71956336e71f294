"""AnyBlock adapter for Falcon-H1 models (`model_type` falcon_h1)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor, HalfLayout

if TYPE_CHECKING:
    from transformers import FalconH1Config

__all__ = ["FalconH1Descriptor"]


class FalconH1Descriptor(DenseDescriptor):
    """Falcon-H1: attention and a Mamba side by side in every layer, and a multiplier after almost everything."""

    decoder_layer = "transformers.models.falcon_h1.modeling_falcon_h1.FalconH1DecoderLayer"
    final_norm = "final_layernorm"
    ffn, ffn_norms = "feed_forward", ("pre_ff_layernorm",)
    measured_cache = True
    not_implemented = ("hidden_size", "mamba_heads")

    def softmax_layout(self) -> HalfLayout:
        """See `DenseDescriptor.softmax_layout`: the Mamba belongs to the same half."""
        found = super().softmax_layout()
        return replace(found, names=(*found.names, "mamba"), zeros={"mamba": 1})

    @hookimpl
    def conformance_config(self) -> FalconH1Config:
        """See `FamilySpec.conformance_config`: every multiplier differs from one; biases are on."""
        from transformers import FalconH1Config

        mamba = {"mamba_d_ssm": 48, "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
        biases = {"attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True, "projectors_bias": True}
        inner = {"key_multiplier": 0.8, "attention_in_multiplier": 1.2, "attention_out_multiplier": 0.7}
        outer = {"embedding_multiplier": 2.0, "lm_head_multiplier": 0.5, "mlp_multipliers": [1.5, 0.5]}
        state = {"ssm_in_multiplier": 1.1, "ssm_out_multiplier": 0.6, "ssm_multipliers": [0.9, 1.1, 0.8, 1.2, 1.3]}
        return FalconH1Config(**TINY_SIZES, **mamba, **biases, **inner, **outer, **state, mamba_rms_norm=True)
