"""AnyBlock adapters for Gemma 4 models (`model_type` gemma4, gemma4_unified and their texts)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor, HalfLayout, SparseDescriptor
from anyblock.errors import UnsupportedModelError

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn
    from transformers import Gemma4Config, Gemma4TextConfig, Gemma4UnifiedConfig, Gemma4UnifiedTextConfig

__all__ = ["Gemma4Descriptor", "Gemma4TextDescriptor", "Gemma4UnifiedDescriptor", "Gemma4UnifiedTextDescriptor"]

_TINY: Final[dict[str, Any]] = {
    **TINY_SIZES,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "global_head_dim": 16,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": True,
    "attention_bias": True,
    "sliding_window": 7,
    "final_logit_softcapping": 2.0,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
}
_EXPERTS: Final[dict[str, Any]] = {
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 128,
}
_TOKENS: Final = {"image_token_id": 122, "video_token_id": 123, "audio_token_id": 124, "boi_token_id": 125}  # fmt: skip
_TOWERS: Final = {
    "vision_encoding": r"model\.(?:vision_tower|audio_tower|embed_vision|embed_audio|vision_embedder)\..+"
}
_EMBEDDINGS: Final = (
    "embed_tokens",
    "embed_tokens_per_layer",
    "per_layer_model_projection",
    "per_layer_projection_norm",
)
_EXPERT_NORMS: Final = ("post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2")
_PER_LAYER: Final = ("per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm")


class Gemma4UnifiedTextDescriptor(DenseDescriptor):
    """The text models of Gemma 4 12B: other heads in layers of full attention, where keys may be the values as well."""

    decoder_layer = "transformers.models.gemma4_unified.modeling_gemma4_unified.Gemma4UnifiedTextDecoderLayer"
    attention_norms = ("input_layernorm", "post_attention_layernorm")
    ffn_norms = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
    other = ("layer_scalar",)
    not_implemented: ClassVar[Mapping[str, str]] = {
        "hidden_size": "embeddings and routers scale by the root of this size"
    }

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """See `DescriptorBase.kinds_of`.

        Raises:
            UnsupportedModelError: layers reuse the keys and values of others (E2B, E4B).
        """
        if reusing := self.language_model_config(config).num_kv_shared_layers:
            raise UnsupportedModelError(
                f"the last {reusing} layers reuse keys and values that layers before them made",
                expected="num_kv_shared_layers of 0, as in Gemma 4 12B, 26B-A4B and 31B",
                hint="what a candidate costs is measured layer by layer, where hidden states alone are handed on",
            )
        return super().kinds_of(config, half)

    @hookimpl
    def conformance_config(self) -> Gemma4UnifiedTextConfig | Gemma4UnifiedConfig | Gemma4TextConfig | Gemma4Config:
        """See `FamilySpec.conformance_config`."""
        from transformers import Gemma4UnifiedTextConfig

        return Gemma4UnifiedTextConfig(**_TINY)


class Gemma4TextDescriptor(Gemma4UnifiedTextDescriptor, SparseDescriptor):
    """The other text models of Gemma 4: perhaps experts next to each dense FFN, and embeddings that every ffn adds."""

    decoder_layer = "transformers.models.gemma4.modeling_gemma4.Gemma4TextDecoderLayer"
    checkpoint_embeddings = tuple(f"model.{name}" for name in _EMBEDDINGS)
    experts, experts_per_token = "num_experts", "top_k_experts"
    shared_width = "intermediate_size"

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`: the dense FFN next to experts is what others call a shared expert."""
        if half == "attention":
            return super().half_kinds(half)
        norms = (*self.ffn_norms, _PER_LAYER[2])
        zeros = {"mlp": 1, **dict.fromkeys(_PER_LAYER[:2], 1)}
        dense = HalfLayout(names=(*zeros, *norms), zeros=zeros, norms=norms, sizes=self.ffn_sizes)
        sparse = {**zeros, "experts": 1, "router": 3}, (*norms, *_EXPERT_NORMS)
        experts = HalfLayout(
            names=(*sparse[0], *sparse[1]),
            zeros=sparse[0],
            norms=sparse[1],
            sizes=self.expert_sizes(),
            mark="router.scale",
        )
        return {"experts": experts, "dense": dense}

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """See `DescriptorBase.kinds_of`: all layers have experts, or none has."""
        if half == "attention":
            return super().kinds_of(config, half)
        text = self.language_model_config(config)
        return [self.half_kinds(half)["experts" if text.enable_moe_block else "dense"]] * int(text.num_hidden_layers)

    def expert_mixins(self) -> dict[str, PruningMixIn]:
        """See `SparseDescriptor.expert_mixins`: router, experts and the dense FFN lie side by side."""
        from anyblock_gemma4.experts import ffn_mixins

        return ffn_mixins(self.checkpoint_layer)

    @hookimpl
    def conformance_config(self) -> Gemma4TextConfig | Gemma4Config:
        """See `FamilySpec.conformance_config`: experts, and embeddings for every layer."""
        from transformers import Gemma4TextConfig

        return Gemma4TextConfig(**_TINY, **_EXPERTS)


class Gemma4Descriptor(Gemma4TextDescriptor):
    """Gemma 4 E2B, E4B, 26B-A4B and 31B with vision and audio towers, which are kept as they are."""

    decoder_prefix = "model.language_model"
    checkpoint_embeddings = tuple(f"model.language_model.{name}" for name in _EMBEDDINGS)
    text_config = "text_config"
    extra_groups = _TOWERS

    @hookimpl
    def conformance_config(self) -> Gemma4Config:
        """See `FamilySpec.conformance_config`: a vision tower of one layer."""
        from transformers import Gemma4Config

        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes = {"num_key_value_heads": 2, "head_dim": 8, "patch_size": 4, "position_embedding_size": 16}
        text = super().conformance_config().to_dict()
        return Gemma4Config(text_config=text, vision_config={**vision, **sizes}, **_TOKENS)


class Gemma4UnifiedDescriptor(Gemma4UnifiedTextDescriptor):
    """Gemma 4 12B, which reads images and sound without a tower; their projections are kept as they are."""

    decoder_prefix = Gemma4Descriptor.decoder_prefix
    text_config = Gemma4Descriptor.text_config
    extra_groups = _TOWERS

    @hookimpl
    def conformance_config(self) -> Gemma4UnifiedConfig:
        """See `FamilySpec.conformance_config`: with projections of images and sound."""
        from transformers import Gemma4UnifiedConfig

        vision = {"patch_size": 4, "mm_embed_dim": 16, "mm_posemb_size": 8, "output_proj_dims": 16}
        text = super().conformance_config().to_dict()
        return Gemma4UnifiedConfig(
            text_config=text, vision_config=vision, audio_config={"audio_embed_dim": 8}, **_TOKENS
        )
