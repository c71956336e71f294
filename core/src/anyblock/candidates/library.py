"""Which candidates a run considers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyblock.candidates.candidate import LINEAR, NO_OP, TEACHER, Candidate
from anyblock.contract.blocks import HALVES, BlockConfig
from anyblock.errors import UnsupportedModelError

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


def list_candidates(
    family: ModelFamily,
    config: Any,
    block_configs: Sequence[BlockConfig],
    sizes: Mapping[str, Callable[[int], Sequence[int]]],
    no_op_halves: Sequence[str],
    linear_halves: Collection[tuple[int, str]] = (),
) -> list[Candidate]:
    """Return every candidate, the teacher's own subblocks first in each group.

    Args:
        family: whose mixins and no-ops are used.
        config: the language model's config.
        block_configs: the teacher's blocks.
        sizes: `{pruning kind: function}` that turns the teacher's number of units into the sizes to offer.
        no_op_halves: the halves that may be removed as a whole.
        linear_halves: the halves, by layer, that one linear map may replace.

    Raises:
        UnsupportedModelError: the family has no such pruning kind.
        UsageError: a size that the family cannot have; the message lists the nearest legal ones.
    """
    mixins = family.pruning_mixins()
    for kind in sizes:
        if kind not in mixins:
            raise UnsupportedModelError(
                f"{family.model_type} has no pruning kind {kind!r}", expected=", ".join(sorted(mixins)) or "none"
            )
    largest = {
        kind: max((mixins[kind].size(block) for block in block_configs if mixins[kind].applies_to(block)), default=0)
        for kind in sizes
    }
    found: list[Candidate] = []
    for layer, block in enumerate(block_configs):
        for half in HALVES:
            if block.half(half).no_op:
                continue
            found.append(Candidate(layer, half, TEACHER, 0, block))
            for kind, sizes_for in sizes.items():
                mixin = mixins[kind]
                if mixin.half != half or not mixin.applies_to(block):
                    continue
                full = mixin.size(block)
                for size in sizes_for(full):
                    if full <= size <= largest[kind]:
                        continue  # meant for the layers that have so many
                    mixin.check_size(block, size, config)
                    found.append(Candidate(layer, half, kind, size, mixin.resize(block, size, config)))
            if (layer, half) in linear_halves:
                found.append(Candidate(layer, half, LINEAR, 0, block.with_half(half, replace_with_linear=True)))
            if half in no_op_halves:
                found.append(Candidate(layer, half, NO_OP, 0, block.with_half(half, no_op=True)))
    return found
