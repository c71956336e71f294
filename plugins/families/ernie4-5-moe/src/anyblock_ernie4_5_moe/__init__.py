"""AnyBlock adapter for ERNIE 4.5 mixture-of-experts models (`model_type` ernie4_5_moe)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, HalfLayout, SparseDescriptor

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn
    from transformers import Ernie4_5_MoeConfig

__all__ = ["Ernie45MoeDescriptor"]


class Ernie45MoeDescriptor(SparseDescriptor):
    """ERNIE 4.5 21B-A3B and 300B-A47B: experts in the layers between two indices, shared ones among them."""

    decoder_layer = "transformers.models.ernie4_5_moe.modeling_ernie4_5_moe.Ernie4_5_MoeDecoderLayer"
    experts, experts_per_token = "moe_num_experts", "moe_k"
    shared_experts = "moe_num_shared_experts"
    dense_layers, sparse_step = "moe_layer_start_index", "moe_layer_interval"
    correction_bias = "moe_statics.e_score_correction_bias"
    extra_groups: ClassVar[Mapping[str, str]] = {"multi_token_prediction": r"model\.mtp_.+"}

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`."""
        from anyblock_ernie4_5_moe.experts import Ernie45ExpertRemovalPruningMixIn

        found = super().layout_mixins()
        descriptor = found["experts_removal"].layer_descriptor
        return found | {"experts_removal": Ernie45ExpertRemovalPruningMixIn(descriptor)}

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """See `DescriptorBase.kinds_of`: layers after the last one with experts are dense, too."""
        found, last = super().kinds_of(config, half), int(config.moe_layer_end_index)
        if half == "attention" or last < 0:
            return found
        dense = self.half_kinds(half)["dense"]
        return [kind if index <= last else dense for index, kind in enumerate(found)]

    @hookimpl
    def conformance_config(self) -> Ernie4_5_MoeConfig:
        """See `FamilySpec.conformance_config`: only the second layer has experts; biases are on."""
        from transformers import Ernie4_5_MoeConfig

        experts = {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 2, "moe_intermediate_size": 16}
        layers = {"moe_layer_start_index": 1, "moe_layer_end_index": 1}
        return Ernie4_5_MoeConfig(**TINY_SIZES, **experts, **layers, use_bias=True)
