"""AnyBlock adapters for Granite 3 and 4 models (`model_type` granite, granitemoehybrid)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor, HalfLayout, Size

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn
    from transformers import GraniteConfig, GraniteMoeHybridConfig

__all__ = ["GraniteDescriptor", "GraniteMoeHybridDescriptor"]

_MULTIPLIERS: Final[dict[str, Any]] = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.22,
    "logits_scaling": 4.0,
    "attention_bias": True,
}


class GraniteDescriptor(DenseDescriptor):
    """Granite 3: as Llama, with multipliers after the embedding, the halves and the head, and inside the attention."""

    decoder_layer = "transformers.models.granite.modeling_granite.GraniteDecoderLayer"

    @hookimpl
    def conformance_config(self) -> GraniteConfig:
        """See `FamilySpec.conformance_config`: multipliers and biases are on."""
        from transformers import GraniteConfig

        return GraniteConfig(**TINY_SIZES, **_MULTIPLIERS, mlp_bias=True)


class GraniteMoeHybridDescriptor(DenseDescriptor):
    """Granite 4: a Mamba or an attention, then routed experts and a shared MLP, or that MLP alone."""

    decoder_layer = "transformers.models.granitemoehybrid.modeling_granitemoehybrid.GraniteMoeHybridDecoderLayer"
    attention_by = "layer_types"
    measured_cache = True
    ffn_sizes: ClassVar[Mapping[str, Size]] = {"intermediate_size": Size("shared_intermediate_size")}
    not_implemented: ClassVar[Mapping[str, str]] = {
        "ffn_intermediate": "a model has dense FFNs in all layers or in none, and the suite's has experts",
        "hidden_size": "the width of a Mamba is a multiple of it",
        "mamba_heads": "a layer derives the width of its heads together from `mamba_expand`",
    }

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`."""
        norms = self.attention_norms
        mamba = HalfLayout(names=("mamba", *norms), zeros={"mamba": 1}, norms=norms, mark="mamba.A_log")
        if half == "attention":
            softmax = self.softmax_layout()
            return {"linear_attention": mamba, "mamba": mamba, "full_attention": softmax, "attention": softmax}
        experts = {
            "num_local_experts": Size("num_local_experts"),
            "num_experts_per_tok": Size("num_experts_per_tok"),
            "expert_intermediate_dim": Size("intermediate_size"),
            "shared_expert_intermediate_dim": Size("shared_intermediate_size"),
        }
        names, norms = ("block_sparse_moe", "shared_mlp"), self.ffn_norms
        return {
            "experts": HalfLayout(
                names=(*names, *norms),
                zeros=dict.fromkeys(names, 1),
                norms=norms,
                sizes=experts,
                mark="block_sparse_moe.router.weight",
            ),
            "dense": HalfLayout(
                names=("shared_mlp", *norms), zeros={"shared_mlp": 1}, norms=norms, sizes=self.ffn_sizes
            ),
        }

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """See `DescriptorBase.kinds_of`: all layers have experts, or none."""
        if half == "attention":
            return super().kinds_of(config, half)
        return [self.half_kinds(half)["experts" if config.num_local_experts else "dense"]] * config.num_hidden_layers

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`."""
        from anyblock.descriptors.mixins import attention_mixins, ffn_mixins, fused_sparse_mixins

        layer, linears = self.checkpoint_layer, ("input_linear", "output_linear")
        return {
            **attention_mixins(layer, self.attention, linears=self.attention_linears),
            **ffn_mixins(layer, "shared_mlp", linears=linears, fused_gate_up="halves"),
            **fused_sparse_mixins(
                layer,
                "block_sparse_moe",
                router="router.layer",
                module_router="router",
                tensors=("input_linear.weight", "output_linear.weight"),
            ),
        }

    @hookimpl
    def conformance_config(self) -> GraniteMoeHybridConfig:
        """See `FamilySpec.conformance_config`: layers of both kinds, multipliers and biases."""
        from transformers import GraniteMoeHybridConfig

        mamba = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 24}
        layers = ["linear_attention", "full_attention", "linear_attention"]
        options = _MULTIPLIERS | {"mamba_proj_bias": True, "position_embedding_type": "rope", "layer_types": layers}
        return GraniteMoeHybridConfig(**TINY_SIZES, **mamba, **experts, **options)
