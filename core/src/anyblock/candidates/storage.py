"""Storage types as part of candidates: which there are, what they cost, and what they make of weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from anyblock.candidates.candidate import Candidate
from anyblock.contract.storage_type import STORAGE, StorageType

if TYPE_CHECKING:
    import torch

    from anyblock.family import ModelFamily

    Tensors = Mapping[str, torch.Tensor]

BYTES: Final = "bytes"
"""The cost that counts the bytes of a file."""


@dataclass(frozen=True)
class Storage:
    """The storage types of a run.

    Attributes:
        types: those of halves by name, the largest first.
        outside: those of embeddings and head, the largest first; whatever else is in no half has the first.
        known: every type of the format by name.
        key: what identifies them, for fingerprints.
    """

    types: tuple[str, ...]
    outside: tuple[str, ...]
    known: Mapping[str, StorageType]
    key: Mapping[str, str]

    @property
    def plain(self) -> StorageType:
        """The type in which the teacher counts, which also answers for its format."""
        return self.known[self.known[self.outside[0]].plain]

    def offered(self, candidates: Sequence[Candidate], family: ModelFamily) -> list[Candidate]:
        """Return every candidate in every type; a removed half has none, and what a file cannot express is left out."""
        teachers = {c.group: family.block_config_to_layer_overrides(c.block_config) for c in candidates if c.unchanged}
        found: list[Candidate] = []
        lacking: set[str] = set()
        for candidate in candidates:
            half, whole = candidate.block_config.half(candidate.half), teachers[candidate.group]
            own = family.block_config_to_layer_overrides(candidate.block_config)
            changes = {name for name, value in own.items() if value != whole.get(name)}
            changes = {"no_op"} if half.no_op else {"linear"} if half.replace_with_linear else changes
            if changes and not self.plain.expresses(family.model_type, changes):
                lacking.add(candidate.kind)
            else:
                found += [replace(candidate, storage=name) for name in ([""] if half.no_op else self.types)]
        if lacking:
            what = f"{', '.join(sorted(lacking))} in some layers of a {family.model_type} and not in others"
            warnings.warn(f"the format {self.plain.format} cannot have {what}: left out of the search", stacklevel=2)
        return found

    def nbytes(self, name: str, tensors: Tensors) -> int:
        """Return the bytes of tensors, perhaps on the meta device, in a type."""
        return sum(self.known[name].nbytes(own, tuple(tensor.shape)) for own, tensor in tensors.items())

    def stored_as(self, name: str, tensors: Tensors) -> tuple[str, ...]:
        """Return the types that tensors, perhaps on the meta device, really have where they are given one."""
        return tuple(self.known[name].stored_as(own, tuple(tensor.shape)) for own, tensor in tensors.items())

    def distinct(self, names: Sequence[str], tensors: Tensors) -> list[str]:
        """Return those of some types that do not leave tensors as an earlier one does."""
        found = {self.stored_as(name, tensors): name for name in reversed(names)}
        return [name for name in names if name in found.values()]

    def rounded(self, name: str, tensors: Tensors) -> dict[str, torch.Tensor]:
        """Return tensors as they are read back from a file, in float32."""
        return {own: self.known[name].rounded(own, tensor) for own, tensor in tensors.items()}

    def storable(self, name: str, tensors: Tensors) -> list[str]:
        """Return a type alone where some tensor can have it, else those that the tensors have in its place."""
        found = set(self.stored_as(name, tensors))
        return [name] if name in found else sorted(found & self.known.keys())

    def stated(self, groups: Sequence[str], chosen: Sequence[Candidate], outside: Mapping[str, str]) -> dict[str, Any]:
        """Return the entry of a child's configuration that says which type each group has.

        Args:
            groups: the child's.
            chosen: its candidates.
            outside: the types of embeddings and head; a head that is the embedding has none of its own.
        """
        types = {"lm_head": outside["embeddings"], **{c.group: c.storage for c in chosen}, **outside}
        return {STORAGE: {"format": self.plain.format, "types": {g: types.get(g) or self.outside[0] for g in groups}}}
