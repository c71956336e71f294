"""AnyBlock adapters for DeepSeek-V3 and DeepSeek-V2 models (`model_type` deepseek_v3, deepseek_v2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.cache_spec import CacheSpec
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, Size, SparseDescriptor

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn
    from transformers import DeepseekV2Config, DeepseekV3Config

__all__ = ["DeepseekV2Descriptor", "DeepseekV3Descriptor"]

_TINY: dict[str, Any] = {
    **TINY_SIZES,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "attention_bias": True,
}


class DeepseekV3Descriptor(SparseDescriptor):
    """DeepSeek-V3, R1 and models of that layout: latent attention, dense first layers, routed and shared experts.

    The router chooses among groups of experts first and has a correction bias. FP8 checkpoints are converted to the
    model's dtype. Layers after the last one predict further tokens; transformers leaves them out.
    """

    decoder_layer = "transformers.models.deepseek_v3.modeling_deepseek_v3.DeepseekV3DecoderLayer"
    attention_linears = ("q_proj", "q_a_proj", "kv_a_proj_with_mqa", "o_proj")
    experts = "n_routed_experts"
    correction_bias = True
    expert_groups = "n_group"
    shared_experts = "n_shared_experts"
    dense_layers = "first_k_dense_replace"
    layers_beyond = True
    attention_sizes: ClassVar[Mapping[str, Size]] = {"num_attention_heads": Size("num_attention_heads")}

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`."""
        from anyblock.descriptors.mixins import latent_attention_mixins

        return {**super().layout_mixins(), **latent_attention_mixins(self.checkpoint_layer, self.attention)}

    @hookimpl
    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> Mapping[str, Any]:
        """See `FamilySpec.block_config_to_layer_overrides`."""
        values = dict(super().block_config_to_layer_overrides(block_config))
        if heads := block_config.attention.num_attention_heads:
            values["num_key_value_heads"] = heads  # every query head has keys and values of its own
        return values

    @hookimpl
    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
        """See `FamilySpec.cache_spec`: the latent vector, and one rotated key that all heads share."""
        if block_config.attention.removed:
            return CacheSpec()
        return CacheSpec(per_token=config.kv_lora_rank + config.qk_rope_head_dim)

    @hookimpl
    def conformance_config(self) -> DeepseekV3Config | DeepseekV2Config:
        """See `FamilySpec.conformance_config`: a dense first layer, two groups of experts; biases are on."""
        from transformers import DeepseekV3Config

        return DeepseekV3Config(**_TINY)


class DeepseekV2Descriptor(DeepseekV3Descriptor):
    """DeepSeek-V2, V2-Lite and Coder-V2: as V3, with a softmax router and no correction bias."""

    decoder_layer = "transformers.models.deepseek_v2.modeling_deepseek_v2.DeepseekV2DecoderLayer"
    correction_bias = False

    @hookimpl
    def conformance_config(self) -> DeepseekV2Config:
        """See `FamilySpec.conformance_config`: the same, with biases in the dense and shared FFN and queries in one step."""
        from transformers import DeepseekV2Config

        changes = {"q_lora_rank": None, "mlp_bias": True, "topk_method": "group_limited_greedy"}
        return DeepseekV2Config(**(_TINY | changes))
