"""AnyBlock adapter for Qwen3 mixture-of-experts models (`model_type` qwen3_moe)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, SparseDescriptor

if TYPE_CHECKING:
    from transformers import Qwen3MoeConfig

__all__ = ["Qwen3MoeDescriptor"]


class Qwen3MoeDescriptor(SparseDescriptor):
    """Qwen3 30B-A3B, 235B-A22B and Coder: attention as in Qwen3, experts without a shared one, perhaps some dense layers."""

    decoder_layer = "transformers.models.qwen3_moe.modeling_qwen3_moe.Qwen3MoeDecoderLayer"
    dense_layers, sparse_step = "mlp_only_layers", "decoder_sparse_step"

    @hookimpl
    def conformance_config(self) -> Qwen3MoeConfig:
        """See `FamilySpec.conformance_config`: the first layer is dense; biases and a sliding window are on."""
        from transformers import Qwen3MoeConfig

        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True}
        window = {"use_sliding_window": True, "sliding_window": 7}
        return Qwen3MoeConfig(**TINY_SIZES, **experts, **window, head_dim=16, attention_bias=True, mlp_only_layers=[0])
