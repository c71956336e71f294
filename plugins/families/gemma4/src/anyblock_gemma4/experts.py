"""Pruning of an ffn of Gemma 4 with experts: the router and a dense FFN are modules next to them."""

from __future__ import annotations

from typing import Any

from anyblock.contract.blocks import BlockConfig
from anyblock.descriptors.hooks import ImportanceHook, RankedChoiceVotingHook
from anyblock.descriptors.mixins import (
    ExpertIntermediateLayerDescriptor,
    ExpertIntermediatePruningMixIn,
    ExpertRemovalLayerDescriptor,
    ExpertRemovalPruningMixIn,
    FFNIntermediateLayerDescriptor,
    FFNIntermediatePruningMixIn,
    PruningMixIn,
)


class RouterRankedExperts(ExpertRemovalPruningMixIn):
    """The removal of experts, ranked by what the router says: no module holds experts and router and nothing else."""

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return (RankedChoiceVotingHook,)

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the router."""
        return self.layer_descriptor.target_name


class DenseChannels(FFNIntermediatePruningMixIn):
    """The channels of the dense FFN, also where experts are next to it and block configs call it a shared expert."""

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`."""
        return block.ffn.moe is not None or super().applies_to(block)

    def size(self, block: BlockConfig) -> int:
        """Return the number of channels."""
        return (block.ffn.moe and block.ffn.moe.shared_expert_intermediate_dim) or super().size(block)

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        if block.ffn.moe is None:
            return super().resized(block, size, config)
        return block.with_moe(shared_expert_intermediate_dim=size)


def ffn_mixins(layer: str) -> dict[str, PruningMixIn]:
    """Return `ffn_intermediate`, `experts_removal` and `expert_intermediate`.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
    """
    dense = FFNIntermediateLayerDescriptor(ffn_prefix_name=f"{layer}.mlp")
    tensors = "experts.gate_up_proj", "experts.down_proj"
    removal = ExpertRemovalLayerDescriptor(
        target_name="router",
        moe_prefix_name=layer,
        router_weights=("router.proj.weight", "router.per_expert_scale"),
        is_fused_experts=True,
        fused_expert_weights=tensors,
    )
    channels = ExpertIntermediateLayerDescriptor(
        target_name="experts",
        moe_prefix_name=layer,
        is_fused_experts=True,
        input_weights=tensors[:1],
        output_weights=tensors[1:],
        fused_gate_up="halves",
    )
    mixins = DenseChannels(dense), RouterRankedExperts(removal), ExpertIntermediatePruningMixIn(channels)
    return {mixin.kind: mixin for mixin in mixins}
