"""AnyBlock adapter for Gemma 2 and Gemma 3 models (`model_type` gemma2, gemma3_text and gemma3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor

if TYPE_CHECKING:
    from transformers import Gemma2Config, Gemma3Config, Gemma3TextConfig

__all__ = ["Gemma2Descriptor", "Gemma3Descriptor", "Gemma3TextDescriptor"]

_TINY: Final[dict[str, Any]] = {**TINY_SIZES, "head_dim": 16, "attention_bias": True, "sliding_window": 7}
_ROPE: Final[dict[str, Any]] = {"full_attention": {"rope_type": "linear", "factor": 8.0}}
_STORED: Final = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "lm_head.": "language_model.lm_head.",
}
_LAYERS: Final = ["sliding_attention", "full_attention", "sliding_attention"]


class Gemma2Descriptor(DenseDescriptor):
    """Gemma 2: a norm before and one after each half, soft-capped logits, sliding-window and full layers by turns."""

    decoder_layer = "transformers.models.gemma2.modeling_gemma2.Gemma2DecoderLayer"
    attention_norms = ("input_layernorm", "post_attention_layernorm")
    ffn_norms = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
    not_implemented = ("hidden_size",)  # norms compute (1 + w) x, and embeddings are scaled by the root of this size

    @hookimpl
    def conformance_config(self) -> Gemma2Config:
        """See `FamilySpec.conformance_config`: caps are low enough to matter."""
        from transformers import Gemma2Config

        return Gemma2Config(**_TINY, attn_logit_softcapping=1.0, final_logit_softcapping=2.0)


class Gemma3TextDescriptor(Gemma2Descriptor):
    """The text models of Gemma 3: norms on queries and keys, and other rotary frequencies in sliding-window layers."""

    decoder_layer = "transformers.models.gemma3.modeling_gemma3.Gemma3DecoderLayer"

    @hookimpl
    def conformance_config(self) -> Gemma3TextConfig:
        """See `FamilySpec.conformance_config`: both kinds of layers."""
        from transformers import Gemma3TextConfig

        return Gemma3TextConfig(**_TINY, layer_types=_LAYERS, rope_parameters=dict(_ROPE))


class Gemma3Descriptor(Gemma3TextDescriptor):
    """Gemma 3 with its vision tower, which is kept as it is."""

    decoder_prefix = "model.language_model"
    checkpoint_prefix = "language_model.model"
    checkpoint_head = ("language_model.model.norm", "language_model.lm_head")
    text_config = "text_config"
    extra_groups: ClassVar = {"vision_encoding": r"(?:vision_tower|multi_modal_projector)\..+"}

    @hookimpl
    def convert_weight_name(self, name: str) -> str:
        """See `FamilySpec.convert_weight_name`: files with the names of modules become like the published ones."""
        for module, stored in _STORED.items():
            if name.startswith(module):
                return stored + name.removeprefix(module)
        return name

    @hookimpl
    def conformance_config(self) -> Gemma3Config:
        """See `FamilySpec.conformance_config`: a vision tower of one layer."""
        from transformers import Gemma3Config

        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        return Gemma3Config(
            text_config=super().conformance_config().to_dict(),
            vision_config={**vision, "image_size": 28, "patch_size": 14},
            mm_tokens_per_image=4,
            image_token_index=125,
            boi_token_index=126,
            eoi_token_index=127,
        )
