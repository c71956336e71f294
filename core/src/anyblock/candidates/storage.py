"""Storage types as part of candidates: which there are, what they cost, and what they make of weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.candidates.candidate import Candidate
from anyblock.contract.storage_type import STORAGE, StorageType
from anyblock.plugins.blame import blaming

if TYPE_CHECKING:
    import torch

    from anyblock.family import ModelFamily
    from anyblock.plugins.status import Origin

    Tensors = Mapping[str, torch.Tensor]

BYTES: Final = "bytes"
"""The cost that counts the bytes of a file."""


@dataclass(frozen=True)
class Storage:
    """The storage types of a run.

    Attributes:
        types: those of halves by name, the largest first.
        outside: the name of that of embeddings, head, and whatever else is in no half.
        known: every type of the format by name.
        origins: which distribution gives each.
    """

    types: tuple[str, ...]
    outside: str
    known: Mapping[str, StorageType]
    origins: Mapping[str, Origin]

    @property
    def format(self) -> str:
        """The export format."""
        return self.known[self.outside].format

    @property
    def plain(self) -> str:
        """The type in which the teacher counts."""
        return self.known[self.outside].plain

    @property
    def key(self) -> dict[str, str]:
        """What identifies the types, for fingerprints."""
        return {f"storage {name}": str(self.origins[name]) for name in (*self.types, self.outside)}

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
            with self._blaming(self.plain):
                possible = not changes or self.known[self.plain].expresses(family.model_type, changes)
            if possible:
                found += [replace(candidate, storage=name) for name in ([""] if half.no_op else self.types)]
            else:
                lacking.add(candidate.kind)
        if lacking:
            what = f"{', '.join(sorted(lacking))} in some layers of a {family.model_type} and not in others"
            warnings.warn(f"the format {self.format} cannot have {what}: left out of the search", stacklevel=2)
        return found

    def nbytes(self, name: str, tensors: Tensors) -> int:
        """Return the bytes of tensors in a type, perhaps on the meta device."""
        with self._blaming(name):
            return sum(self.known[name].nbytes(own, tuple(tensor.shape)) for own, tensor in tensors.items())

    def candidate_bytes(self, candidate: Candidate, tensors: Tensors, config: Any) -> int:
        """Return what a candidate adds to the file."""
        if candidate.storage:
            return self.nbytes(candidate.storage, tensors)
        with self._blaming(self.plain):
            return self.known[self.plain].removed(candidate.layer, candidate.half, config)

    def frame(self, model: Path, config: Any, layers: int) -> int:
        """See `StorageType.frame`."""
        with self._blaming(self.plain):
            return self.known[self.plain].frame(model, config, layers)

    def rounded(self, name: str, tensors: Tensors) -> dict[str, torch.Tensor]:
        """Return tensors as they are read back from a file, in float32."""
        with self._blaming(name):
            return {own: self.known[name].rounded(own, tensor) for own, tensor in tensors.items()}

    def stated(self, groups: Sequence[str], chosen: Sequence[Candidate]) -> dict[str, Any]:
        """Return the entry of a child's configuration that says which type each group has."""
        types = {candidate.group: candidate.storage for candidate in chosen}
        return {STORAGE: {"format": self.format, "types": {g: types.get(g) or self.outside for g in groups}}}

    def storable(self, name: str, tensors: Tensors) -> list[str]:
        """Return a type alone where some tensor can have it, else those that the tensors have in its place."""
        with self._blaming(name):
            found = {self.known[name].stored_as(own, tuple(tensor.shape)) for own, tensor in tensors.items()}
        return [name] if name in found else sorted(found & self.known.keys())

    def _blaming(self, name: str) -> Any:
        return blaming(self.origins[name], f"the storage type {name!r}", self.known[name])
