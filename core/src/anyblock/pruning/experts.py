"""Removing experts from a sparse feed-forward layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from anyblock.contract.blocks import BlockConfig, MoEConfig
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import Half, PruningMixIn
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis, UnitTensors
from anyblock.contract.tensor_select import Tensors
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.importance.expert_removal import MoERemoveExpertsHook, RemoveExpertsIndependentHook
from anyblock.importance.voting import RankedChoiceVotingHook
from anyblock.pruning.ordering import first_of_groups, within_groups


@dataclass(frozen=True, kw_only=True)
class ExpertRemovalLayerDescriptor:
    """The tensors of a sparse feed-forward layer, as far as whole experts are concerned.

    Args:
        target_name: module path of the router inside the decoder layer, `mlp.gate`.
        sparse_name: module path of the sparse FFN inside the decoder layer; that around the router where it is empty.
        moe_prefix_name: checkpoint prefix of the layer's sparse FFN, `model.layers.{layer_idx}.mlp`.
        router_weights: tensors below the prefix with one row an expert.
        router_biases: tensors below the prefix with one entry per expert, last, that is added before the choice.
        expert_prefix_name: one expert's prefix below the sparse FFN, `experts.{expert_idx}`.
        expert_weights: the tensors below an expert's prefix that have to be there; whatever else is there goes along.
        is_fused_experts: whether all experts share one tensor, with one entry an expert in dimension 0.
        fused_expert_weights: those tensors, below the sparse FFN's prefix.
        fused_expert_biases: further ones that need not be there.
        groups_attribute: the configuration's number of expert groups among which the router chooses first, `n_group`.
        chosen_groups_attribute: the configuration's number of groups that it chooses, `topk_group`.
    """

    target_name: str = "mlp.gate"
    sparse_name: str = ""
    moe_prefix_name: str = "model.layers.{layer_idx}.mlp"
    router_weights: tuple[str, ...] = ("gate.weight",)
    router_biases: tuple[str, ...] = ()
    expert_prefix_name: str = "experts.{expert_idx}"
    expert_weights: tuple[str, ...] = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
    is_fused_experts: bool = False
    fused_expert_weights: tuple[str, ...] = ()
    fused_expert_biases: tuple[str, ...] = ()
    groups_attribute: str | None = None
    chosen_groups_attribute: str = "topk_group"

    def tensor_name(self, layer_index: int, part: str) -> str:
        """Return the checkpoint name of `part`, for instance `gate.weight`."""
        return f"{self.moe_prefix_name.format(layer_idx=layer_index)}.{part}"


def sparse(block: BlockConfig, kind: str) -> MoEConfig:
    """Return the block's sparse configuration.

    Raises:
        UsageError: the block's ffn is not sparse.
    """
    if block.ffn.moe is None:
        raise UsageError(f"{kind}: the block has no experts", expected="a block with ffn.moe")
    return block.ffn.moe


class ExpertRemovalPruningMixIn(PruningMixIn):
    """Keep the best experts: their tensors, and their rows of the router; top-k stays as it is.

    Where the router first chooses among groups of experts, every group keeps equally many, so that the child routes as
    the teacher does without the removed experts; sorting then moves experts within their group only.
    """

    kind: ClassVar[str] = "experts_removal"
    half: ClassVar[Half] = "ffn"
    layer_descriptor: ExpertRemovalLayerDescriptor

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: sparse FFNs."""
        return block.ffn.moe is not None

    def size(self, block: BlockConfig) -> int:
        """Return the number of routed experts."""
        return sparse(block, self.kind).num_local_experts

    def groups(self, config: Any) -> int:
        """Return among how many groups of experts the router chooses first; 1 without groups."""
        name = self.layer_descriptor.groups_attribute
        return int(getattr(config, name, None) or 1) if name else 1

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return at least top-k experts; with groups a multiple of their number that the chosen groups can serve."""
        moe, groups = sparse(block, self.kind), self.groups(config)
        if not self.layer_descriptor.groups_attribute:
            return range(moe.num_experts_per_tok, moe.num_local_experts + 1)
        chosen = int(getattr(config, self.layer_descriptor.chosen_groups_attribute, None) or groups)
        # The router rates a group by its two best experts.
        least = max(2, -(-moe.num_experts_per_tok // chosen))
        return range(least * groups, moe.num_local_experts + 1, groups)

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`; any hook derived from `RemoveExpertsIndependentHook` is."""
        return MoERemoveExpertsHook, RankedChoiceVotingHook, RemoveExpertsIndependentHook

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the sparse module, or of its router for a hook that watches that."""
        if hook is not None and issubclass(hook, RankedChoiceVotingHook):
            return self.layer_descriptor.target_name
        return self.layer_descriptor.sparse_name or self.layer_descriptor.target_name.rpartition(".")[0]

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """See `PruningMixIn.axes`."""
        names = self.layer_descriptor
        never = (Segment(silence=Silence.NEVER),)
        fused = names.is_fused_experts
        required = (*names.router_weights, *(names.fused_expert_weights if fused else ()))
        optional = names.fused_expert_biases if fused else ()
        return (
            *(TensorAxis(names.tensor_name(layer_index, part), 0, required=True) for part in required),
            *(TensorAxis(names.tensor_name(layer_index, part), -1, never) for part in names.router_biases),
            *(TensorAxis(names.tensor_name(layer_index, part), 0) for part in optional),
        )

    def unit_tensors(self, layer_index: int, block: BlockConfig, config: Any) -> UnitTensors | None:
        """See `PruningMixIn.unit_tensors`."""
        names = self.layer_descriptor
        if names.is_fused_experts:
            return None
        return UnitTensors(names.tensor_name(layer_index, names.expert_prefix_name) + ".", names.expert_weights)

    def sorted_order(self, order: torch.Tensor, config: Any) -> torch.Tensor:
        """See `PruningMixIn.sorted_order`: with groups of experts, the best first within every group."""
        return self.within_groups(order, config)

    def within_groups(self, order: torch.Tensor, config: Any) -> torch.Tensor:
        """Return the order that `sort` gives the experts: `order`, taken apart by group; int64 `[experts]`."""
        return within_groups(order, self.groups(config))

    def kept(self, block: BlockConfig, size: int, config: Any) -> torch.Tensor:
        """See `PruningMixIn.kept`: the first experts of every group."""
        return first_of_groups(self.size(block), size, self.groups(config))

    def mask(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, child: BlockConfig, config: Any
    ) -> dict[str, torch.Tensor]:
        """See `PruningMixIn.mask`: removed experts get a bias of minus infinity, and the router never chooses them.

        A router without any bias cannot be silenced by weights alone: `anyblock.importance.router.silenced_experts`
        does it to the model, with the experts that `removed` returns.

        Raises:
            UnsupportedModelError: the router has no bias.
        """
        names = self.layer_descriptor
        biases = [names.tensor_name(layer_index, part) for part in names.router_biases]
        shrinks = self._child_size(block, child, config) < self.size(block)
        if shrinks and not any(name in tensors for name in biases):
            raise UnsupportedModelError(
                f"{self.kind}: the router of layer {layer_index} has no bias that could silence an expert",
                expected="a tensor " + (" or ".join(biases) if biases else "with one bias an expert"),
                hint="run the teacher within anyblock.importance.router.silenced_experts instead",
            )
        return super().mask(layer_index, tensors, block, child, config)

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block.with_moe(num_local_experts=size)

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        least = min(self.legal_sizes(block, config), default=self.size(block))
        step = f", in steps of {self.groups(config)}" if self.groups(config) > 1 else ""
        return f"{least} to {self.size(block)} experts{step}; the router's top-k has to be served"
