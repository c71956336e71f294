"""AnyBlock adapters for Llama 4 models (`model_type` llama4, llama4_text)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, HalfLayout, Size, SparseDescriptor

if TYPE_CHECKING:
    from transformers import Llama4Config, Llama4TextConfig

__all__ = ["Llama4Descriptor", "Llama4TextDescriptor"]


class Llama4TextDescriptor(SparseDescriptor):
    """The text models of Llama 4: attention in chunks or without rotary embedding, experts in all or some layers."""

    decoder_layer = "transformers.models.llama4.modeling_llama4.Llama4TextDecoderLayer"
    ffn = "feed_forward"
    ffn_sizes: ClassVar[Mapping[str, Size]] = {"intermediate_size": Size("intermediate_size_mlp")}
    expert_width = "intermediate_size"
    shared_width = "intermediate_size"
    router = "router"
    fused_experts, transposed_experts = "halves", True
    not_implemented: ClassVar[Mapping[str, str]] = {
        "expert_intermediate": "the shared expert takes its width from the same attribute"
    }

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`: experts come with their router's logits, and a dense FFN comes alone."""
        if half == "attention":
            return super().half_kinds(half)
        experts = replace(self.ffn_layout(self.expert_sizes()), zeros={self.ffn: 2}, mark="feed_forward.router.weight")
        return {"experts": experts, "dense": self.ffn_layout(self.ffn_sizes)}

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """See `DescriptorBase.kinds_of`: the configuration has the indices of layers with experts."""
        if half == "attention":
            return super().kinds_of(config, half)
        kinds, text = self.half_kinds(half), self.language_model_config(config)
        return [kinds["experts" if index in text.moe_layers else "dense"] for index in range(text.num_hidden_layers)]

    @hookimpl
    def conformance_config(self) -> Llama4TextConfig:
        """See `FamilySpec.conformance_config`: the second layer has experts and no rotary embedding; biases are on."""
        from transformers import Llama4TextConfig

        experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "interleave_moe_layer_step": 2}
        sizes = {**TINY_SIZES, "intermediate_size": 16, "intermediate_size_mlp": 48, "head_dim": 8}
        attention = {"attention_bias": True, "attention_chunk_size": 7, "no_rope_layers": [1, 0, 1], "floor_scale": 4}
        return Llama4TextConfig(**sizes, **experts, **attention)


class Llama4Descriptor(Llama4TextDescriptor):
    """Llama 4 with its vision tower, which is kept as it is."""

    decoder_prefix, head = "language_model.model", "language_model.lm_head"
    text_config = "text_config"
    extra_groups: ClassVar[Mapping[str, str]] = {"vision_encoding": r"(?:vision_model|multi_modal_projector)\..+"}
    not_implemented: ClassVar[Mapping[str, str]] = {
        **Llama4TextDescriptor.not_implemented,
        "hidden_size": "the vision tower writes into the residual stream",
    }

    @hookimpl
    def conformance_config(self) -> Llama4Config:
        """See `FamilySpec.conformance_config`: a vision tower of one layer."""
        from transformers import Llama4Config

        vision = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes = {"image_size": 28, "patch_size": 7, "projector_input_dim": 24, "projector_output_dim": 24}
        return Llama4Config(
            text_config=super().conformance_config().to_dict(),
            vision_config={**vision, **sizes, "vision_output_dim": 24},
            boi_token_index=125,
            eoi_token_index=126,
            image_token_index=127,
        )
