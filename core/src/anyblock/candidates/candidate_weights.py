"""The weights of candidates, as views of a teacher whose units are sorted once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch

from anyblock.candidates.candidate import NO_OP, TEACHER, Candidate
from anyblock.candidates.library import supported
from anyblock.candidates.no_op import NoOp
from anyblock.candidates.sources import MixInWeights, Orders, PooledWeights, SourceWeights, Teacher, Weights
from anyblock.candidates.storage import Storage
from anyblock.contract.blocks import HALVES, group_name
from anyblock.contract.candidate_source import CandidateSource

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

_KEPT: Final = 4
"""How many rounded halves are kept: those of a layer, and what is tried in their place."""


class CandidateWeights:
    """Gives every candidate's tensors by checkpoint name.

    One layer's sorted tensors are kept at a time, since scoring and realizing go layer by layer.

    Args:
        checkpoint: the teacher; a `PlannedTeacher` where only shapes are asked for.
        family: whose mixins sort and narrow.
        config: the language model's config.
        orders: how the units of each axis are sorted; an axis without an entry keeps its order.
        pooled: `{kind: how}` of kinds whose units are made from several of the teacher's, see `pruning.heads.POOLING`.
        sources: sources of candidates by name, besides the removal of halves.
        storage: the storage types that candidates have; None where they have none.
    """

    def __init__(
        self,
        checkpoint: Teacher,
        family: ModelFamily,
        config: Any,
        orders: Orders,
        pooled: Mapping[str, str] | None = None,
        sources: Mapping[str, CandidateSource] | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._checkpoint, self._storage = checkpoint, storage
        self._rounded: dict[str, dict[str, torch.Tensor]] = {}
        mixins, supports, origins = family.pruning_mixins(), supported(family), family.origins("sources")
        self._kinds = {TEACHER: Weights(checkpoint, config)}
        for kind, mixin in mixins.items():
            how = (pooled or {}).get(kind)
            self._kinds[kind] = (
                MixInWeights(checkpoint, config, mixin, orders)
                if how is None
                else PooledWeights(checkpoint, config, mixin, how)
            )
        for name, source in {NO_OP: NoOp(), **(sources or {})}.items():
            self._kinds[name] = SourceWeights(checkpoint, config, source, origins[name], mixins, supports)

    def subblock(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """Return the tensors of the candidate's own half, rounded to its storage type; empty for a no-op."""
        if not candidate.storage:
            return self._kinds[candidate.kind].tensors(candidate)
        assert self._storage is not None
        found = self._rounded.pop(candidate.key, None)
        if found is None:
            found = self._storage.rounded(candidate.storage, self._kinds[candidate.kind].tensors(candidate))
        self._rounded[candidate.key] = found  # a layer is asked for again and again while it is worked on
        while len(self._rounded) > _KEPT:
            del self._rounded[next(iter(self._rounded))]
        return dict(found)

    def shapes(self, candidate: Candidate, teacher: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Return the candidate's own half on the meta device, from the teacher's half on the meta device."""
        return self._kinds[candidate.kind].shapes(candidate, teacher)

    def block(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """Return the tensors of the whole block: the candidate's half, and whatever else the teacher's block has."""
        tensors = self.subblock(candidate)
        for half in (*HALVES, "other"):
            group = group_name(candidate.layer, half)
            if half != candidate.half and group in self._checkpoint.groups:
                tensors.update(self._checkpoint.load(group))
        return tensors

    def nested_in(self, candidate: Candidate) -> str | None:
        """Return the linear module inside the layer whose inputs the candidate's units are; None if these do not nest.

        Units nest where a smaller candidate of the same kind has the first units of a larger one, unchanged: then the module's
        output in the smaller one is a part of the sum that it is in the larger one. Rounding undoes that.
        """
        return None if candidate.storage else self._kinds[candidate.kind].nested_in(candidate)

    def of(self, candidate: Candidate) -> Weights:
        """Return what else the candidate's kind can answer: which units it keeps, and how it is repaired."""
        return self._kinds[candidate.kind]
