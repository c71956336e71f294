"""AnyBlock adapter for MiniMax-M2 models (`model_type` minimax_m2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, SparseDescriptor

if TYPE_CHECKING:
    from transformers import MiniMaxM2Config

__all__ = ["MiniMaxM2Descriptor"]


class MiniMaxM2Descriptor(SparseDescriptor):
    """MiniMax-M2, M2.1 and M2.5: norms over all queries and all keys, experts in every layer, FP8 checkpoints."""

    decoder_layer = "transformers.models.minimax_m2.modeling_minimax_m2.MiniMaxM2DecoderLayer"
    checkpoint_ffn = "block_sparse_moe"
    expert_linears = ("w1", "w3", "w2")
    expert_width = "intermediate_size"
    correction_bias = "e_score_correction_bias"

    @hookimpl
    def conformance_config(self) -> MiniMaxM2Config:
        """See `FamilySpec.conformance_config`: rotary embeddings on a part of each head."""
        from transformers import MiniMaxM2Config

        rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
        tokens = {"bos_token_id": 126, "eos_token_id": 127}
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
        return MiniMaxM2Config(**TINY_SIZES, **experts, **tokens, head_dim=8, rope_parameters=rope)
