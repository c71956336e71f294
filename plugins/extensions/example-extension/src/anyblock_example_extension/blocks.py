"""Pruning of ffn channels in blocks of neighbours, which keeps the blocks of a quantised format whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import torch
from anyblock.contract.blocks import BlockConfig
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.tensor_axis import Segment, TensorAxis
from anyblock.descriptors.mixins import FFNIntermediatePruningMixIn

from anyblock_example_extension.wanda import WandaChannelContributionHook

BLOCK: Final = 16
"""Channels in a block: as many as share a scale in NVFP4 (MXFP4 and Q4_0 have 32, which are two of these)."""


class WandaBlockContributionHook(WandaChannelContributionHook):
    """Score every block of 16 neighbouring channels by the sum of its channels' Wanda scores."""

    def scores(self) -> torch.Tensor:
        """See `ImportanceHook.scores`; float32 `[blocks]`."""
        return super().scores().reshape(-1, BLOCK).sum(dim=1)


class FFNBlocksPruningMixIn(FFNIntermediatePruningMixIn):
    """Keep the best blocks of 16 neighbouring channels of a dense FFN; within a block nothing moves.

    The tensors are those of `ffn_intermediate`, whose layer descriptor the family gives; only the unit is larger.
    """

    kind: ClassVar[str] = "ffn_blocks"

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: dense FFNs of whole blocks."""
        return super().applies_to(block) and super().size(block) % BLOCK == 0

    def size(self, block: BlockConfig) -> int:
        """Return the number of blocks."""
        return super().size(block) // BLOCK

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return (WandaBlockContributionHook,)

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """See `PruningMixIn.axes`."""
        return tuple(
            replace(axis, segments=tuple(_widened(segment) for segment in axis.segments))
            for axis in super().axes(layer_index, block, config)
        )

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return every number of blocks from 1 on."""
        return range(1, self.size(block) + 1)

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block.with_ffn(intermediate_size=size * BLOCK)

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        return f"1 to {self.size(block)} blocks of {BLOCK} channels"


def _widened(segment: Segment) -> Segment:
    return replace(segment, width=segment.width * BLOCK)
