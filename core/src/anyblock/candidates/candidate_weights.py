"""The weights of candidates, as views of a teacher whose units are sorted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from anyblock.candidates.candidate import LINEAR, NO_OP, TEACHER, Candidate
from anyblock.candidates.linear import LinearMaps, LinearSite
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import HALVES, BlockConfig, group_name
from anyblock.errors import ExecutionError
from anyblock.importance.expert_moments import ExpertGramStatistic
from anyblock.importance.statistics import GramStatistic, LinearFitStatistic, Moments
from anyblock.pruning.expert_channels import ExpertIntermediatePruningMixIn
from anyblock.pruning.ffn import FFNIntermediatePruningMixIn
from anyblock.pruning.heads import QueryGroupsPruningMixIn, pool_heads
from anyblock.pruning.least_squares import LinearFit, fit_linear
from anyblock.pruning.repair_child import is_repairable, repair_child
from anyblock.pruning.repair_experts import repair_experts

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

Orders = Mapping[tuple[int, str], torch.Tensor]
"""`{(layer, pruning kind): unit indices, most important first}`."""


class CandidateWeights:
    """Gives every candidate's tensors by checkpoint name.

    One layer's sorted tensors are kept at a time, since scoring and realizing go layer by layer.

    Args:
        checkpoint: the teacher.
        family: whose mixins sort and narrow.
        config: the language model's config.
        orders: how the units of each axis are sorted; an axis without an entry keeps its order.
        linear: the maps that replace halves; None where there are none.
        pooled: `{kind: how}` of kinds whose units are made from several of the teacher's, see `pruning.heads.POOLING`.
    """

    def __init__(
        self,
        checkpoint: SubblockCheckpoint,
        family: ModelFamily,
        config: Any,
        orders: Orders,
        linear: LinearMaps | None = None,
        pooled: Mapping[str, str] | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._mixins = family.pruning_mixins()
        self._config = config
        self._orders = orders
        self._linear = linear or LinearMaps()
        self._pooled = pooled or {}
        self._sorted: dict[tuple[int, str], dict[str, torch.Tensor]] = {}

    def subblock(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """Return the tensors of the candidate's own half; empty for a no-op."""
        if candidate.kind == NO_OP:
            return {}
        if candidate.kind == TEACHER:
            return self._checkpoint.load(candidate.group)
        if candidate.kind == LINEAR:
            return self._site(candidate).tensors(self._checkpoint.load(candidate.group), self._map(candidate))
        teacher = self._checkpoint.block_configs[candidate.layer]
        if candidate.kind in self._pooled:
            mixin, how = self._mixins[candidate.kind], self._pooled[candidate.kind]
            tensors = self._checkpoint.load(candidate.group)
            return pool_heads(mixin, how, candidate.layer, tensors, teacher, candidate.block_config, self._config)
        return self._mixins[candidate.kind].narrow(
            candidate.layer, self._sorted_half(candidate), teacher, candidate.block_config, self._config
        )

    def block(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """Return the tensors of the whole block: the candidate's half, and whatever else the teacher's block has."""
        tensors = self.subblock(candidate)
        for half in (*HALVES, "other"):
            group = group_name(candidate.layer, half)
            if half != candidate.half and group in self._checkpoint.groups:
                tensors.update(self._checkpoint.load(group))
        return tensors

    def nested_in(self, candidate: Candidate) -> str | None:
        """Return the linear module inside the layer whose inputs are the candidate's units; None if these do not nest.

        Units nest where a smaller candidate of the same kind has the first units of a larger one, unchanged: then the module's
        output in the smaller one is a part of the sum that it is in the larger one. A norm over all units would undo that, which
        cannot be seen here.
        """
        if candidate.kind in (TEACHER, NO_OP, LINEAR) or candidate.kind in self._pooled:
            return None
        mixin = self._mixins[candidate.kind]
        nests = isinstance(mixin, FFNIntermediatePruningMixIn | QueryGroupsPruningMixIn)
        return mixin.hook_target(candidate.layer) if nests else None

    def is_repairable(self, candidate: Candidate) -> bool:
        """Say whether the linear map behind the candidate's removed units, or in place of a half, can be re-fitted."""
        if candidate.kind == LINEAR:
            return True
        if candidate.kind in self._pooled:  # no inputs of the map behind them are removed
            return False
        return candidate.kind not in (TEACHER, NO_OP) and is_repairable(self._mixins[candidate.kind])

    def watched_module(self, candidate: Candidate) -> str:
        """Return the module inside the layer whose inputs the candidate's units are, for instance `mlp.down_proj`.

        Of a linear map it is the whole module that it replaces.
        """
        if candidate.kind == LINEAR:
            return self._site(candidate).module
        return self._mixins[candidate.kind].hook_target(candidate.layer)

    def statistic(self, candidate: Candidate) -> type[GramStatistic | ExpertGramStatistic]:
        """Return what has to be collected of `watched_module` to re-fit a repairable candidate."""
        if candidate.kind == LINEAR:
            return LinearFitStatistic
        experts = isinstance(self._mixins[candidate.kind], ExpertIntermediatePruningMixIn)
        return ExpertGramStatistic if experts else GramStatistic

    def repaired(
        self, candidate: Candidate, fit: Moments | Sequence[Moments], held_out: Moments | Sequence[Moments]
    ) -> tuple[dict[str, torch.Tensor], LinearFit]:
        """Return the candidate's tensors with the map behind the removed units re-fitted by least squares.

        Args:
            candidate: a repairable one.
            fit: moments of the map's inputs in the teacher's own order of units; of a linear half, of the outputs too; of
                experts, one entry for each.
            held_out: the same of other tokens, by which the ridge is chosen.
        """
        if candidate.kind == LINEAR:
            assert isinstance(fit, Moments)
            assert isinstance(held_out, Moments)
            fitted = fit_linear(fit, held_out, start=self._map(candidate))
            return self._site(candidate).tensors(self._checkpoint.load(candidate.group), fitted.weight), fitted
        mixin = self._mixins[candidate.kind]
        teacher = self._checkpoint.block_configs[candidate.layer]
        order = self._orders.get((candidate.layer, candidate.kind))
        if order is None:
            order = torch.arange(mixin.size(teacher))
        common = (candidate.layer, self._sorted_half(candidate), teacher, candidate.block_config, self._config, order)
        if isinstance(mixin, ExpertIntermediatePruningMixIn):
            assert not isinstance(fit, Moments)
            assert not isinstance(held_out, Moments)
            return repair_experts(mixin, *common, fit, held_out)
        assert isinstance(fit, Moments)
        assert isinstance(held_out, Moments)
        return repair_child(mixin, *common, fit, held_out)

    def kept_units(self, candidate: Candidate) -> list[int] | list[list[int]]:
        """Return the indices in the teacher of the units that the candidate keeps, in the child's order.

        Where every expert has its own order of channels there is one list an expert. Of a unit that is the mean of several
        there is the list of these.
        """
        mixin, teacher = self._mixins[candidate.kind], self._checkpoint.block_configs[candidate.layer]
        if pooled := self._pooled.get(candidate.kind):
            groups = torch.arange(mixin.size(teacher)).reshape(candidate.size, -1)
            return (groups if pooled == "average" else groups[:, 0]).tolist()
        places = mixin.kept(teacher, candidate.size, self._config)
        order = self._orders.get((candidate.layer, candidate.kind))
        if order is None:
            return places.tolist()
        return mixin.sorted_order(order, self._config)[..., places].tolist()

    def _site(self, candidate: Candidate) -> LinearSite:
        return self._linear.sites[candidate.layer, candidate.half]

    def _map(self, candidate: Candidate) -> torch.Tensor:
        return self._linear.weights[candidate.layer, candidate.half]

    def _sorted_half(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        key = (candidate.layer, candidate.kind)
        if key not in self._sorted:
            if any(layer != candidate.layer for layer, _ in self._sorted):
                self._sorted.clear()
            teacher = self._checkpoint.block_configs[candidate.layer]
            tensors = self._checkpoint.load(candidate.group)
            order = self._orders.get(key)
            if order is None:
                self._sorted[key] = tensors
            else:
                size = self._mixins[candidate.kind].size(teacher)
                if order.shape[-1] != size or not (order.sort(-1).values == torch.arange(size)).all():
                    raise ExecutionError(
                        f"the order of {candidate.kind} in layer {candidate.layer} is no permutation of {size} units",
                        hint="the importance stage's result is damaged; delete it and run again",
                    )
                self._sorted[key] = self._mixins[candidate.kind].sort(
                    candidate.layer, tensors, teacher, order, self._config
                )
        return self._sorted[key]


def candidate_shapes(
    family: ModelFamily,
    config: Any,
    teacher: BlockConfig,
    candidate: Candidate,
    tensors: Mapping[str, torch.Tensor],
    linear: LinearMaps | None = None,
) -> Mapping[str, torch.Tensor]:
    """Return the candidate's own half on the meta device.

    Args:
        family: whose mixins narrow.
        config: the language model's config.
        teacher: the teacher's block.
        candidate: the candidate.
        tensors: the teacher's half on the meta device.
        linear: where linear maps go.
    """
    if candidate.kind == NO_OP:
        return {}
    if candidate.kind == TEACHER:
        return tensors
    if candidate.kind == LINEAR and linear is not None:
        width = int(config.hidden_size)
        map_ = torch.empty(width, width, device="meta")
        return linear.sites[candidate.layer, candidate.half].tensors(tensors, map_)
    mixin = family.pruning_mixins()[candidate.kind]
    return mixin.narrow(candidate.layer, tensors, teacher, candidate.block_config, config)
