"""Which pruning kinds, sizes and halves there are to try on a subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.contract.blocks import HALVES, BlockConfig, Half
from anyblock.contract.capabilities import CAPABILITIES

from anyblock_conformance.subject import Subject

_NOT_PRUNING: Final = {"convert", "build", "attention_no_op", "ffn_no_op", "hidden_size", "search"}
KINDS: Final = tuple(name for name in CAPABILITIES if name not in _NOT_PRUNING)
"""The pruning kinds of one half of a layer that core has a capability for."""


def pruning_cases(subject: Subject) -> Sequence[str]:
    """Return core's pruning kinds, and those that the adapter or an extension adds."""
    return list(dict.fromkeys((*KINDS, *subject.mixins)))


def half_cases(subject: Subject) -> Sequence[str]:
    """Return the two halves of a block."""
    return list(HALVES)


def works_on(subject: Subject, kind: str) -> list[int]:
    """Return the layers among those to be tried that have units of this kind."""
    mixin = subject.mixins.get(kind)
    return [] if mixin is None else [layer for layer in subject.layers if mixin.applies_to(subject.blocks[layer])]


def smaller_sizes(subject: Subject, kind: str, layer: int) -> list[int]:
    """Return the legal sizes below the layer's own, ascending."""
    mixin, block = subject.mixins[kind], subject.blocks[layer]
    return [size for size in mixin.legal_sizes(block, subject.text_config) if size < mixin.size(block)]


def claimed_kinds(subject: Subject) -> list[str]:
    """Return the kinds that the adapter stands for."""
    return [kind for kind in subject.mixins if kind not in CAPABILITIES or subject.family.supports(kind)]


def resized(subject: Subject, kind: str, layer: int, size: int) -> BlockConfig:
    """Return the layer's block with `size` units of this kind."""
    return subject.mixins[kind].resize(subject.blocks[layer], size, subject.text_config)


def without(block: BlockConfig, *halves: str) -> BlockConfig:
    """Return a block with these halves removed."""
    for half in halves:
        block = block.with_half(half, no_op=True)
    return block


def no_op(subject: Subject, layer: int, half: Half) -> Candidate:
    """Return the candidate that removes one half of one layer."""
    return Candidate(layer, half, NO_OP, 0, without(subject.blocks[layer], half))


def removable(subject: Subject, layer: int) -> list[Half]:
    """Return the halves of a layer that are there and that the adapter says it can remove."""
    block = subject.blocks[layer]
    return [half for half in HALVES if not block.half(half).no_op and subject.family.supports(f"{half}_no_op")]
