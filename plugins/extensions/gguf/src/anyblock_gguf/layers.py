"""The sizes that llama.cpp is given for every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from anyblock.contract.blocks import BlockConfig

ZERO_WIDTH: Final = 32
"""The channels of an ffn of zeros: one block of the format Q8_0."""


@dataclass(frozen=True)
class LayerSizes:
    """One layer as llama.cpp builds it.

    Attributes:
        heads, kv_heads: query and key-value heads; 0 for no attention.
        width: channels of the ffn; 0 for none.
        zero_attention, zero_ffn: the child lacks this half, and llama.cpp gets one of zeros.
    """

    heads: int
    kv_heads: int
    width: int
    zero_attention: bool
    zero_ffn: bool


def layer_sizes(blocks: Sequence[BlockConfig], heads: Sequence[int]) -> list[LayerSizes]:
    """Return the sizes of every layer.

    llama.cpp (`src/models/deci.cpp`) takes the width of a head from layer 0, which therefore needs an attention; it skips
    a layer without an ffn as a whole, its attention included; and in the last layer it picks the rows whose logits are
    wanted, which it must not skip. Where a removed half would meet one of these, it is written as a half of zeros: the
    smallest there is, which adds nothing to the residual stream.

    Args:
        blocks: the child's block configs.
        heads: the query heads of each layer.
    """
    found = []
    for index, block in enumerate(blocks):
        attention, ffn = block.attention, block.ffn
        zero_attention = attention.no_op and index == 0
        attends = zero_attention or not attention.no_op
        zero_ffn = ffn.no_op and (attends or index == len(blocks) - 1)
        found.append(
            LayerSizes(
                heads=1 if zero_attention else 0 if attention.no_op else heads[index],
                kv_heads=1 if zero_attention else attention.num_key_value_heads or 0,
                width=ZERO_WIDTH if zero_ffn else ffn.intermediate_size or 0,
                zero_attention=zero_attention,
                zero_ffn=zero_ffn,
            )
        )
    return found
