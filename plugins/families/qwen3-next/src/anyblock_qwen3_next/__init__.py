"""AnyBlock adapters for Qwen3-Next and Qwen3.5 models (`model_type` qwen3_next, qwen3_5, qwen3_5_moe and their texts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor, HalfLayout, SparseDescriptor

if TYPE_CHECKING:
    import torch
    from anyblock.contract.pruning_mixin import PruningMixIn
    from transformers import Qwen3_5Config, Qwen3_5MoeConfig, Qwen3_5MoeTextConfig, Qwen3_5TextConfig, Qwen3NextConfig

__all__ = [
    "Qwen3NextDescriptor",
    "Qwen35Descriptor",
    "Qwen35MoeDescriptor",
    "Qwen35MoeTextDescriptor",
    "Qwen35TextDescriptor",
]

_TINY: Final[dict[str, Any]] = {
    **TINY_SIZES,
    "head_dim": 8,
    "attention_bias": True,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
_EXPERTS: Final[dict[str, Any]] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
}
_ROPE: Final[dict[str, Any]] = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
_FUSED: Final = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""What of an expert a tensor that all experts share holds."""
_SEEING: Final[dict[str, Any]] = {
    "vision_config": {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "patch_size": 4,
    },
    "image_token_id": 124,
    "video_token_id": 125,
    "vision_start_token_id": 126,
    "vision_end_token_id": 127,
}


class _DeltaNet(DenseDescriptor):
    """What all of them share: layers with a gated delta net among those with softmax attention, whose queries have gates."""

    attention_by = "layer_types"
    measured_cache = True
    extra_groups: ClassVar[Mapping[str, str]] = {"multi_token_prediction": r"mtp\..+"}
    not_implemented = ("hidden_size",)  # norms compute (1 + w) x

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`."""
        if half != "attention":
            return super().half_kinds(half)
        norms = self.attention_norms
        linear = HalfLayout(
            names=("linear_attn", *norms), zeros={"linear_attn": 1}, norms=norms, mark="linear_attn.A_log"
        )
        return {"linear_attention": linear, "full_attention": self.softmax_layout()}

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`: rows of a query head and of its gate lie together."""
        from anyblock.descriptors.mixins import attention_mixins

        linears = self.attention_linears
        gated = attention_mixins(self.checkpoint_layer, self.attention, linears=linears, query_row_multiple=2)
        return super().layout_mixins() | gated


class Qwen3NextDescriptor(_DeltaNet, SparseDescriptor):
    """Qwen3-Next 80B-A3B and Coder-Next: routed experts and a shared one with a gate, perhaps some dense layers."""

    decoder_layer = "transformers.models.qwen3_next.modeling_qwen3_next.Qwen3NextDecoderLayer"
    experts = "num_experts"
    shared_width = "shared_expert_intermediate_size"
    dense_layers, sparse_step = "mlp_only_layers", "decoder_sparse_step"

    @hookimpl
    def conformance_config(self) -> Qwen3NextConfig:
        """See `FamilySpec.conformance_config`: the first layer is dense."""
        from transformers import Qwen3NextConfig

        return Qwen3NextConfig(**_TINY, **_EXPERTS, mlp_only_layers=[0])


class Qwen35TextDescriptor(_DeltaNet):
    """The text models of Qwen3.5: dense."""

    decoder_layer = "transformers.models.qwen3_5.modeling_qwen3_5.Qwen3_5DecoderLayer"

    @hookimpl
    def conformance_config(self) -> Qwen3_5TextConfig:
        """See `FamilySpec.conformance_config`."""
        from transformers import Qwen3_5TextConfig

        return Qwen3_5TextConfig(**_TINY, rope_parameters=_ROPE | {"mrope_section": [2, 1, 1]})


class Qwen35MoeTextDescriptor(_DeltaNet, SparseDescriptor):
    """The text models of Qwen3.5 with experts, in every layer.

    Published files hold the experts of a layer in two tensors, those that transformers 5 writes have tensors for each
    expert. A converted checkpoint has the latter.
    """

    decoder_layer = "transformers.models.qwen3_5_moe.modeling_qwen3_5_moe.Qwen3_5MoeDecoderLayer"
    experts = "num_experts"
    shared_width = "shared_expert_intermediate_size"

    @hookimpl
    def dequantize(self, names: Sequence[str], config: Any) -> Mapping[str, Sequence[str]] | None:
        """See `FamilySpec.dequantize`: the weights of every expert, where a tensor holds those of all."""
        experts = range(self.language_model_config(config).num_experts)
        found = {}
        for name in names:
            prefix, _, fused = name.rpartition(".")
            for linear in _FUSED.get(fused, ()) if prefix.endswith(".mlp.experts") else ():
                found.update({f"{prefix}.{index}.{linear}.weight": (name,) for index in experts})
        return found or super().dequantize(names, config)

    @hookimpl
    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:
        """See `FamilySpec.dequantize_tensor`: one expert's weights; gate comes before up."""
        if len(sources) > 1:  # numbers and their scales
            return super().dequantize_tensor(name, sources, config)
        ((source, experts),) = sources.items()
        index, linear, _ = name.split(".")[-3:]
        linears = _FUSED[source.rpartition(".")[2]]
        return experts[int(index)].chunk(len(linears))[linears.index(linear)].clone()

    @hookimpl
    def conformance_config(self) -> Qwen3_5MoeTextConfig:
        """See `FamilySpec.conformance_config`."""
        from transformers import Qwen3_5MoeTextConfig

        text = {name: value for name, value in _TINY.items() if name != "intermediate_size"}
        return Qwen3_5MoeTextConfig(**text, **_EXPERTS, rope_parameters=_ROPE | {"mrope_section": [2, 1, 1]})


class Qwen35Descriptor(Qwen35TextDescriptor):
    """Qwen3.5 with its vision tower, which is kept as it is."""

    decoder_prefix = "model.language_model"
    text_config = "text_config"
    extra_groups: ClassVar[Mapping[str, str]] = {**_DeltaNet.extra_groups, "vision_encoding": r"model\.visual\..+"}

    @hookimpl
    def conformance_config(self) -> Qwen3_5Config:
        """See `FamilySpec.conformance_config`: a vision tower of one layer."""
        from transformers import Qwen3_5Config

        return Qwen3_5Config(text_config=super().conformance_config().to_dict(), **_SEEING)


class Qwen35MoeDescriptor(Qwen35MoeTextDescriptor):
    """Qwen3.5 with experts and with its vision tower, which is kept as it is."""

    decoder_prefix = Qwen35Descriptor.decoder_prefix
    text_config = Qwen35Descriptor.text_config
    extra_groups = Qwen35Descriptor.extra_groups

    @hookimpl
    def conformance_config(self) -> Qwen3_5MoeConfig:
        """See `FamilySpec.conformance_config`: a vision tower of one layer."""
        from transformers import Qwen3_5MoeConfig

        return Qwen3_5MoeConfig(text_config=super().conformance_config().to_dict(), **_SEEING)
