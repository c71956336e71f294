"""AnyBlock adapter for GLM-4.5, GLM-4.6 and GLM-4.7 models (`model_type` glm4_moe)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, SparseDescriptor

if TYPE_CHECKING:
    from transformers import Glm4MoeConfig

__all__ = ["Glm4MoeDescriptor"]


class Glm4MoeDescriptor(SparseDescriptor):
    """GLM-4.5 to 4.7: grouped attention, dense first layers, routed and shared experts, a layer for a further token."""

    decoder_layer = "transformers.models.glm4_moe.modeling_glm4_moe.Glm4MoeDecoderLayer"
    experts = "n_routed_experts"
    correction_bias = True
    expert_groups = "n_group"
    shared_experts = "n_shared_experts"
    dense_layers = "first_k_dense_replace"
    layers_beyond = True

    @hookimpl
    def conformance_config(self) -> Glm4MoeConfig:
        """See `FamilySpec.conformance_config`: a dense first layer, two groups of experts, norms on heads, biases."""
        from transformers import Glm4MoeConfig

        experts = {"n_routed_experts": 6, "n_shared_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        groups = {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
        return Glm4MoeConfig(**TINY_SIZES, **experts, **groups, head_dim=8, use_qk_norm=True, attention_bias=True)
