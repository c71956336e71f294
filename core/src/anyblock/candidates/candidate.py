"""A candidate: one alternative for one subblock of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from anyblock.contract.blocks import BlockConfig, Half, group_name

TEACHER: Final = "teacher"
NO_OP: Final = "no_op"


@dataclass(frozen=True)
class Candidate:
    """One alternative for one half of one layer.

    Attributes:
        layer: the layer's index.
        half: which subblock it replaces.
        kind: `teacher` (unchanged), or the name of the source or the pruning kind that makes it.
        size: the units it keeps (channels, heads, experts); 0 where its kind has one alternative for a half.
        block_config: the whole block, in which only this half differs from the teacher's.
        storage: the storage type to whose values its weights are rounded; empty where they are not.
    """

    layer: int
    half: Half
    kind: str
    size: int
    block_config: BlockConfig
    storage: str = ""

    @property
    def unchanged(self) -> bool:
        """Whether it is the teacher's own subblock, weights included."""
        return self.kind == TEACHER and not self.storage

    @property
    def unrounded(self) -> Self:
        """The same with its weights as they are before they are rounded."""
        return replace(self, storage="")

    @property
    def group(self) -> str:
        """The search group it competes in: `block_{layer}_{half}`, also the name of its weights' group."""
        return group_name(self.layer, self.half)

    @property
    def label(self) -> str:
        """Its name within the group, the same in every layer: `kind` or `kind=size`; `@type` if rounded."""
        shape = f"{self.kind}={self.size}" if self.size else self.kind
        return f"{shape}@{self.storage}" if self.storage else shape

    @property
    def key(self) -> str:
        """Its name in the run: `group:label`."""
        return f"{self.group}:{self.label}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "layer": self.layer,
            "half": self.half,
            "kind": self.kind,
            "size": self.size,
            "block_config": self.block_config.to_dict(),
            **({"storage": self.storage} if self.storage else {}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the JSON form."""
        return cls(**{**data, "block_config": BlockConfig.from_dict(data["block_config"])})


def child_blocks(teacher: Sequence[BlockConfig], chosen: Sequence[Candidate]) -> list[BlockConfig]:
    """Return the child's block configs; a half for which nothing was chosen stays the teacher's."""
    blocks = list(teacher)
    for candidate in chosen:
        own = candidate.block_config.half(candidate.half)
        blocks[candidate.layer] = blocks[candidate.layer].exchanged(candidate.half, own)
    return blocks
