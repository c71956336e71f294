"""Removing channels of every expert in a sparse feed-forward layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import Half, PruningMixIn, Repair
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis
from anyblock.errors import UsageError
from anyblock.importance.expert_channels import ExpertChannelContributionHook
from anyblock.pruning.experts import sparse
from anyblock.pruning.ffn import GateUp, gate_up_segments


@dataclass(frozen=True, kw_only=True)
class ExpertIntermediateLayerDescriptor:
    """The tensors of a sparse feed-forward layer, as far as the experts' own channels are concerned.

    Args:
        target_name: module path of the experts inside the decoder layer, `mlp.experts`.
        moe_prefix_name: checkpoint prefix of the layer's sparse FFN, `model.layers.{layer_idx}.mlp`.
        expert_prefix_name: one expert's prefix below the sparse FFN, `experts.{expert_idx}`.
        input_weights, output_weights: tensors below an expert's prefix, or, with fused experts, below the sparse FFN's.
        input_biases: biases of the input weights, which need not be there.
        is_fused_experts: whether all experts share one tensor, with one entry an expert in dimension 0.
        fused_gate_up: the layout of input weights that hold gate and up in one tensor; None without such.
        transposed: weights are stored `[..., in, out]`.
        shared_is_multiple: whether the model builds its shared expert as a whole number of routed experts (DeepSeek-V3);
            the shared expert's own width stays, so it has to be a multiple of the routed experts' width.
    """

    target_name: str = "mlp.experts"
    moe_prefix_name: str = "model.layers.{layer_idx}.mlp"
    expert_prefix_name: str = "experts.{expert_idx}"
    input_weights: tuple[str, ...] = ("gate_proj.weight", "up_proj.weight")
    output_weights: tuple[str, ...] = ("down_proj.weight",)
    input_biases: tuple[str, ...] = ()
    is_fused_experts: bool = False
    fused_gate_up: GateUp | None = None
    transposed: bool = False
    shared_is_multiple: bool = False

    def tensor_name(self, layer_index: int, part: str, expert: int | None = None) -> str:
        """Return the checkpoint name of `part`, of one expert or, with None, of all."""
        prefix = self.moe_prefix_name.format(layer_idx=layer_index)
        if expert is not None:
            prefix = f"{prefix}.{self.expert_prefix_name.format(expert_idx=expert)}"
        return f"{prefix}.{part}"


class ExpertIntermediatePruningMixIn(PruningMixIn):
    """Keep the best channels of every expert; all experts of a layer get the same width.

    The order may be `[experts, channels]`, each expert's channels by its own scores, or one order for all.
    """

    kind: ClassVar[str] = "expert_intermediate"
    half: ClassVar[Half] = "ffn"
    repair: ClassVar[Repair] = "per_expert"
    layer_descriptor: ExpertIntermediateLayerDescriptor

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: sparse FFNs."""
        return block.ffn.moe is not None

    def size(self, block: BlockConfig) -> int:
        """Return the number of channels of each expert."""
        return sparse(block, self.kind).expert_intermediate_dim

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return the multiples of 8, or of the largest power of two that the teacher's width has.

        The grouped products that transformers runs experts with take rows of whole 16 bytes only.
        """
        step, shared = self._step(block), sparse(block, self.kind).shared_expert_intermediate_dim
        sizes = range(step, self.size(block) + 1, step)
        if not self.layer_descriptor.shared_is_multiple or shared is None:
            return sizes
        return [size for size in sizes if shared % size == 0]

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return (ExpertChannelContributionHook,)

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the experts' module."""
        return self.layer_descriptor.target_name

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """See `PruningMixIn.axes`."""
        names = self.layer_descriptor
        fused = int(names.is_fused_experts)
        rows, columns = (fused + 1, fused) if names.transposed else (fused, fused + 1)
        inputs = (Segment(),) if names.fused_gate_up is None else gate_up_segments(names.fused_gate_up)
        outputs = (Segment(silence=Silence.ZERO),)
        experts = [None] if fused else list(range(sparse(block, self.kind).num_local_experts))
        parts = [
            *((part, columns, outputs, True) for part in names.output_weights),
            *((part, rows, inputs, True) for part in names.input_weights),
            *((part, fused, inputs, False) for part in names.input_biases),
        ]
        return tuple(
            TensorAxis(
                names.tensor_name(layer_index, part, expert),
                dim,
                segments,
                required=required,
                row="each" if expert is None else expert,
            )
            for expert in experts
            for part, dim, segments, required in parts
        )

    def _check_order(self, order: torch.Tensor, block: BlockConfig) -> None:
        if order.dim() != 2:
            super()._check_order(order, block)
            return
        if len(order) != (experts := sparse(block, self.kind).num_local_experts):
            raise UsageError(
                f"{self.kind}: the order has {len(order)} rows", expected=f"one for each of {experts} experts"
            )
        for row in order:
            super()._check_order(row, block)

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block.with_moe(expert_intermediate_dim=size)

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        shared = sparse(block, self.kind).shared_expert_intermediate_dim
        also = f" that divides {shared}" if self.layer_descriptor.shared_is_multiple and shared else ""
        return f"a multiple of {self._step(block)} up to {self.size(block)}{also}"

    def _step(self, block: BlockConfig) -> int:
        return math.gcd(self.size(block), 8)
