"""Removing channels of a dense feed-forward layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import Half, PruningMixIn, Repair
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis
from anyblock.errors import UsageError
from anyblock.importance.brain_surgeon import OptimalBrainSurgeonHook
from anyblock.importance.channels import IndependentChannelContributionHook
from anyblock.importance.iterative import IterativeChannelContributionHook

GateUp = Literal["halves", "interleaved"]
"""How one tensor holds gate and up: `[gate | up]`, or gate and up of each channel side by side."""


def gate_up_segments(layout: GateUp) -> tuple[Segment, ...]:
    """Return how the channels lie along the fused dimension."""
    return (Segment(), Segment()) if layout == "halves" else (Segment(2),)


@dataclass(frozen=True, kw_only=True)
class FFNIntermediateLayerDescriptor:
    """The tensors of a dense feed-forward layer.

    Args:
        down_proj_name: module path of the output projection inside the decoder layer, `mlp.down_proj`.
        ffn_prefix_name: checkpoint prefix of the layer's FFN, `model.layers.{layer_idx}.mlp`.
        linear_weight_names: the linear modules below the prefix; the last part of `down_proj_name` is the output
            projection, all others are input projections.
        fused_gate_up: the layout of an input projection that holds gate and up in one tensor; None without one.
        transposed: weights are stored `[in, out]` (GPT-2's `Conv1D`).
    """

    down_proj_name: str = "mlp.down_proj"
    ffn_prefix_name: str = "model.layers.{layer_idx}.mlp"
    linear_weight_names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    fused_gate_up: GateUp | None = None
    transposed: bool = False

    @property
    def output_linear(self) -> str:
        """The one of `linear_weight_names` that `down_proj_name` ends with."""
        ends = [name for name in self.linear_weight_names if f".{self.down_proj_name}".endswith(f".{name}")]
        return max(ends, key=len, default=self.down_proj_name.rpartition(".")[2])

    def tensor_name(self, layer_index: int, linear: str, suffix: str = "weight") -> str:
        """Return the checkpoint name of one tensor."""
        return ".".join(part for part in (self.ffn_prefix_name.format(layer_idx=layer_index), linear, suffix) if part)


class FFNIntermediatePruningMixIn(PruningMixIn):
    """Keep the best channels of a dense FFN: rows of the input projections, columns of the output projection."""

    kind: ClassVar[str] = "ffn_intermediate"
    half: ClassVar[Half] = "ffn"
    repair: ClassVar[Repair] = "one_map"
    nests: ClassVar[bool] = True
    layer_descriptor: FFNIntermediateLayerDescriptor

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: dense FFNs."""
        return block.ffn.intermediate_size is not None

    def size(self, block: BlockConfig) -> int:
        """Return the number of channels."""
        if block.ffn.intermediate_size is None:
            raise UsageError(
                "ffn_intermediate: the block has no dense ffn", expected="a block with ffn.intermediate_size"
            )
        return block.ffn.intermediate_size

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return every width from 1 on."""
        return range(1, self.size(block) + 1)

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return IterativeChannelContributionHook, OptimalBrainSurgeonHook, IndependentChannelContributionHook

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the output projection."""
        return self.layer_descriptor.down_proj_name

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """See `PruningMixIn.axes`."""
        names = self.layer_descriptor
        rows, columns = (1, 0) if names.transposed else (0, 1)
        down = names.output_linear
        segments = (Segment(),) if names.fused_gate_up is None else gate_up_segments(names.fused_gate_up)
        result = [
            TensorAxis(names.tensor_name(layer_index, down), columns, (Segment(silence=Silence.ZERO),), required=True),
        ]
        for linear in names.linear_weight_names:
            if linear != down:
                result.append(TensorAxis(names.tensor_name(layer_index, linear), rows, segments, required=True))
                result.append(TensorAxis(names.tensor_name(layer_index, linear, "bias"), 0, segments))
        return tuple(result)

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block.with_ffn(intermediate_size=size)

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        return f"a width from 1 to {self.size(block)}"
