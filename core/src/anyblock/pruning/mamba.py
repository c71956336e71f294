"""Removing heads of a Mamba-2 mixer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from anyblock.contract.blocks import BlockConfig, MambaConfig
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import Half, PruningMixIn
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis
from anyblock.errors import UsageError
from anyblock.importance.kv_heads import MambaHeadContributionHook
from anyblock.pruning.ordering import first_of_groups, within_groups


@dataclass(frozen=True, kw_only=True)
class MambaHeadsLayerDescriptor:
    """The tensors of a Mamba-2 mixer, which have the same names in every model of transformers.

    Args:
        out_proj_name: module path of the output projection inside the decoder layer, `mixer.out_proj`.
        mixer_prefix_name: checkpoint prefix of the mixer, `backbone.layers.{layer_idx}.mixer`.
        groups_attribute: the configuration's number of groups of heads that share B and C, `n_groups`.
    """

    out_proj_name: str = "mixer.out_proj"
    mixer_prefix_name: str = "backbone.layers.{layer_idx}.mixer"
    groups_attribute: str = "n_groups"

    def tensor_name(self, layer_index: int, part: str) -> str:
        """Return the checkpoint name of `part`, for instance `in_proj.weight`."""
        return f"{self.mixer_prefix_name.format(layer_idx=layer_index)}.{part}"


class MambaHeadsPruningMixIn(PruningMixIn):
    """Keep the best heads of every group of heads; groups, which share B and C, and the state's size stay as they are.

    The norm in front of the output projection spans a group's heads: in the child it divides by the mean over fewer, as
    it does in the teacher whose other heads are silent, up to a factor that `mask` puts into the norm's weight, and up to
    the norm's epsilon. That heads go within groups only is the finding of Taghibakhshi et al. 2025 (Efficient Hybrid
    Language Model Compression through Group-Aware SSM Pruning).
    """

    kind: ClassVar[str] = "mamba_heads"
    half: ClassVar[Half] = "attention"
    layer_descriptor: MambaHeadsLayerDescriptor

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: Mamba mixers."""
        return block.attention.mamba is not None

    def size(self, block: BlockConfig) -> int:
        """Return the number of heads."""
        return self._mamba(block).num_heads

    def groups(self, config: Any) -> int:
        """Return how many groups of heads there are."""
        return int(getattr(config, self.layer_descriptor.groups_attribute))

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return the multiples of the number of groups."""
        step = self._mamba(block).num_groups
        return range(step, self.size(block) + 1, step)

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return (MambaHeadContributionHook,)

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the output projection."""
        return self.layer_descriptor.out_proj_name

    def sorted_order(self, order: torch.Tensor, config: Any) -> torch.Tensor:
        """See `PruningMixIn.sorted_order`: the best first within every group."""
        return within_groups(order, self.groups(config))

    def kept(self, block: BlockConfig, size: int, config: Any) -> torch.Tensor:
        """See `PruningMixIn.kept`: the first heads of every group."""
        return first_of_groups(self.size(block), size, self._mamba(block).num_groups)

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """See `PruningMixIn.axes`."""
        mamba = self._mamba(block)
        gate, value = Segment(mamba.head_dim), Segment(mamba.head_dim, silence=Silence.ZERO)
        shared = Segment(2 * mamba.num_groups * mamba.state_dim, "stay")
        # A silent head reads nothing and passes nothing through its convolution, so that its state stays zero.
        parts: tuple[tuple[str, int, tuple[Segment, ...], bool], ...] = (
            ("out_proj.weight", 1, (value,), True),
            ("in_proj.weight", 0, (gate, value, shared, Segment()), True),
            ("in_proj.bias", 0, (gate, value, shared, Segment()), False),
            ("conv1d.weight", 0, (value, shared), True),
            ("conv1d.bias", 0, (value, shared), False),
            ("norm.weight", 0, (Segment(mamba.head_dim, silence=Silence.NORM),), True),
            *((name, 0, (Segment(),), True) for name in ("dt_bias", "A_log", "D")),
        )
        return tuple(
            TensorAxis(self.layer_descriptor.tensor_name(layer_index, name), dim, segments, required=required)
            for name, dim, segments, required in parts
        )

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block.with_attention(mamba=replace(self._mamba(block), num_heads=size))

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        return f"a multiple of {self._mamba(block).num_groups} up to {self.size(block)}"

    def _mamba(self, block: BlockConfig) -> MambaConfig:
        if block.attention.mamba is None:
            raise UsageError(f"{self.kind}: the block has no Mamba", expected="a block with attention.mamba")
        return block.attention.mamba
