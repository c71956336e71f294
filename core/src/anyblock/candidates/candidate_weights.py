"""The weights of candidates, as views of a teacher whose units are sorted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from anyblock.candidates.candidate import LINEAR, NO_OP, TEACHER, Candidate
from anyblock.candidates.library import supported
from anyblock.candidates.linear import LinearMaps
from anyblock.candidates.no_op import NoOp
from anyblock.candidates.sources import (
    AnyMoments,
    LinearWeights,
    MixInWeights,
    Orders,
    OutputMap,
    PlannedTeacher,
    PooledWeights,
    SourceWeights,
    Teacher,
    Weights,
)
from anyblock.candidates.storage import Storage
from anyblock.contract.blocks import HALVES, BlockConfig, group_name
from anyblock.contract.candidate_source import CandidateSource
from anyblock.importance.expert_moments import ExpertGramStatistic
from anyblock.importance.statistics import GramStatistic
from anyblock.pruning.least_squares import LinearFit

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
        linear: the maps that replace halves; None where there are none.
        pooled: `{kind: how}` of kinds whose units are made from several of the teacher's, see `pruning.heads.POOLING`.
        sources: further sources of candidates by name.
        storage: the storage types that candidates have; None where they have none.
    """

    def __init__(
        self,
        checkpoint: Teacher,
        family: ModelFamily,
        config: Any,
        orders: Orders,
        linear: LinearMaps | None = None,
        pooled: Mapping[str, str] | None = None,
        sources: Mapping[str, CandidateSource] | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._checkpoint, self._storage = checkpoint, storage
        self._rounded: dict[str, dict[str, torch.Tensor]] = {}
        mixins, supports, origins = family.pruning_mixins(), supported(family), family.origins("sources")
        self._kinds: dict[str, Weights] = {
            TEACHER: Weights(checkpoint, config),
            LINEAR: LinearWeights(checkpoint, config, linear or LinearMaps()),
        }
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

    def is_repairable(self, candidate: Candidate) -> bool:
        """Return whether the linear map after the candidate's removed units, or in place of a half, can be re-fitted."""
        return self._kinds[candidate.kind].repairable

    def watched_module(self, candidate: Candidate) -> str:
        """Return the module inside the layer whose inputs the candidate's units are, for instance `mlp.down_proj`.

        Of a linear map it is the whole module that it replaces.
        """
        return self._kinds[candidate.kind].watched_module(candidate)

    def output_map(self, candidate: Candidate) -> OutputMap | None:
        """Return the one linear map after the candidate's removed units; None where there is no such map, or several."""
        return self._kinds[candidate.kind].output_map(candidate)

    def statistic(self, candidate: Candidate) -> type[GramStatistic | ExpertGramStatistic]:
        """Return what has to be collected of `watched_module` to re-fit a repairable candidate."""
        return self._kinds[candidate.kind].statistic()

    def repaired(
        self, candidate: Candidate, fit: AnyMoments, held_out: AnyMoments
    ) -> tuple[dict[str, torch.Tensor], LinearFit]:
        """Return the candidate's tensors with the map after the removed units re-fitted by least squares.

        Args:
            candidate: a repairable one.
            fit: moments of the map's inputs in the teacher's own order of units; of a linear half, of the outputs too; of
                experts, one entry for each.
            held_out: the same of other tokens, by which the ridge is chosen.
        """
        return self._kinds[candidate.kind].repaired(candidate, fit, held_out)

    def kept_units(self, candidate: Candidate) -> list[Any] | None:
        """Return the indices in the teacher of the units that the candidate keeps, in the child's order.

        Where every expert has its own order of channels there is one list per expert. Of a unit that is the mean of several
        there is the list of these. None where the candidate has no units of the teacher's.
        """
        return self._kinds[candidate.kind].kept_units(candidate)


def candidate_shapes(
    family: ModelFamily,
    config: Any,
    block_configs: Sequence[BlockConfig],
    candidate: Candidate,
    tensors: Mapping[str, torch.Tensor],
    linear: LinearMaps | None = None,
) -> Mapping[str, torch.Tensor]:
    """Return one candidate's own half on the meta device; of many, ask one `CandidateWeights` for `shapes`.

    Args:
        family: whose mixins narrow.
        config: the language model's config.
        block_configs: the teacher's blocks.
        candidate: the candidate.
        tensors: the teacher's half on the meta device.
        linear: where linear maps go.
    """
    return CandidateWeights(PlannedTeacher(block_configs), family, config, {}, linear).shapes(candidate, tensors)
