"""Where the weights of candidates come from: one object per kind, all with the same methods.

`Weights` says what every kind can answer. Most answers are "no": only units of a pruning mixin nest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from anyblock.candidates.candidate import Candidate
from anyblock.contract.blocks import BlockConfig
from anyblock.contract.candidate_source import CandidateSource, HalfSite, LinearFit, Offer
from anyblock.contract.importance_hook import ActivationStatistic, ImportanceHook
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.contract.tensor_select import present
from anyblock.errors import CheckpointError, ExecutionError
from anyblock.importance.expert_moments import ExpertGramStatistic
from anyblock.importance.statistics import GramStatistic
from anyblock.plugins.blame import blaming, check_result
from anyblock.plugins.status import Origin
from anyblock.pruning.heads import pool_heads
from anyblock.pruning.repair_child import repair_child
from anyblock.pruning.repair_experts import repair_experts

Orders = Mapping[tuple[int, str], torch.Tensor]
"""`{(layer, pruning kind): unit indices, most important first}`."""
Tensors = Mapping[str, torch.Tensor]


class Teacher(Protocol):
    """What is needed of the teacher: its blocks, and its tensors by group; a `SubblockCheckpoint` has both."""

    @property
    def block_configs(self) -> Sequence[BlockConfig]:
        """One per layer."""

    @property
    def groups(self) -> Mapping[str, Any]:
        """Its groups of tensors."""

    def load(self, group: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a group by checkpoint name."""


@dataclass(frozen=True)
class PlannedTeacher:
    """A teacher that is not converted yet: only shapes can be asked of its candidates."""

    block_configs: Sequence[BlockConfig]
    groups: Mapping[str, Any] = field(default_factory=dict)

    def load(self, group: str) -> dict[str, torch.Tensor]:
        """See `Teacher.load`."""
        raise NotImplementedError(f"{group}: the teacher has no files yet")


@dataclass(frozen=True)
class OutputMap:
    """The linear map to which the units of a half are the inputs.

    Attributes:
        module: its path inside the layer.
        tensor: its weight's checkpoint name.
        inputs: the dimension of that tensor along which the inputs lie.
    """

    module: str
    tensor: str
    inputs: int


class Weights:
    """What a kind of candidate answers; this one is the teacher's own subblock.

    Args:
        checkpoint: the teacher.
        config: the language model's config.
    """

    repairable = False
    """Whether a linear map that the candidate has can be re-fitted to make up for what was removed."""

    def __init__(self, checkpoint: Teacher, config: Any) -> None:
        self.checkpoint = checkpoint
        self.config = config

    def tensors(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """Return the tensors of the candidate's own half, by checkpoint name."""
        return self.checkpoint.load(candidate.group)

    def shapes(self, candidate: Candidate, teacher: Tensors) -> Tensors:
        """Return the same on the meta device, from the teacher's half on the meta device."""
        return teacher

    def nested_in(self, candidate: Candidate) -> str | None:
        """Return the linear module inside the layer whose inputs the units are, where units nest; None elsewhere."""
        return None

    def watched(self, candidate: Candidate) -> tuple[str, Callable[..., ActivationStatistic]]:
        """Return of a repairable candidate which module inside the layer is watched, and what is collected to re-fit it by."""
        raise NotImplementedError(f"{candidate.key} is not repairable")

    def output_map(self, candidate: Candidate) -> OutputMap | None:
        """Return the one linear map after the removed units; None where there is no such map, or several."""
        return None

    def repaired(
        self, candidate: Candidate, statistic: ActivationStatistic
    ) -> tuple[dict[str, torch.Tensor], LinearFit]:
        """Return the tensors of a repairable candidate, re-fitted to what was collected in the teacher's own order of units."""
        raise NotImplementedError(f"{candidate.key} is not repairable")

    def kept_units(self, candidate: Candidate) -> list[Any] | None:
        """Return the indices in the teacher of the units that the candidate keeps, in the child's order.

        Where every expert has its own order of channels there is one list per expert; of a unit that is the mean of several
        there is the list of these. None where the candidate has no units of the teacher's.
        """
        return None


class MixInWeights(Weights):
    """Fewer units of one kind of pruning: views of the teacher, whose units are sorted once per layer."""

    def __init__(self, checkpoint: Teacher, config: Any, mixin: PruningMixIn, orders: Orders) -> None:
        super().__init__(checkpoint, config)
        self._mixin = mixin
        self._orders = orders
        self._sorted: tuple[int, dict[str, torch.Tensor]] | None = None
        self.repairable = mixin.repair != "none"

    def tensors(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """See `Weights.tensors`."""
        half = self._sorted_half(candidate)
        return self._mixin.narrow(candidate.layer, half, self._teacher(candidate), candidate.block_config, self.config)

    def shapes(self, candidate: Candidate, teacher: Tensors) -> Tensors:
        """See `Weights.shapes`."""
        return self._mixin.narrow(
            candidate.layer, teacher, self._teacher(candidate), candidate.block_config, self.config
        )

    def nested_in(self, candidate: Candidate) -> str | None:
        """See `Weights.nested_in`. A norm over all units would undo it, which callers verify (`NestedSum.begins_with`)."""
        return self._mixin.hook_target(candidate.layer) if self._mixin.nests else None

    def watched(self, candidate: Candidate) -> tuple[str, Callable[..., ActivationStatistic]]:
        """See `Weights.watched`."""
        statistic = ExpertGramStatistic if self._mixin.repair == "per_expert" else GramStatistic
        return self._mixin.hook_target(candidate.layer), statistic

    def output_map(self, candidate: Candidate) -> OutputMap | None:
        """See `Weights.output_map`."""
        if self._mixin.repair != "one_map" or not self.repairable:
            return None
        teacher = self._teacher(candidate)
        axes = self._mixin.axes(candidate.layer, teacher, self.config)[:1]
        found = present(axes, self._sorted_half(candidate), self._mixin.size(teacher))[0]
        return OutputMap(self._mixin.hook_target(candidate.layer), found.name, found.dim)

    def repaired(
        self, candidate: Candidate, statistic: ActivationStatistic
    ) -> tuple[dict[str, torch.Tensor], LinearFit]:
        """See `Weights.repaired`."""
        teacher, mixin = self._teacher(candidate), self._mixin
        order = self._orders.get((candidate.layer, candidate.kind))
        if order is None:
            order = torch.arange(mixin.size(teacher))
        common = (candidate.layer, self._sorted_half(candidate), teacher, candidate.block_config, self.config, order)
        if isinstance(statistic, ExpertGramStatistic):
            return repair_experts(mixin, *common, statistic.fit, statistic.held_out)
        assert isinstance(statistic, GramStatistic)
        return repair_child(mixin, *common, statistic.fit, statistic.held_out)

    def kept_units(self, candidate: Candidate) -> list[Any] | None:
        """See `Weights.kept_units`; where every expert has its own order of channels there is one list per expert."""
        places = self._mixin.kept(self._teacher(candidate), candidate.size, self.config)
        order = self._orders.get((candidate.layer, candidate.kind))
        return (places if order is None else self._mixin.sorted_order(order, self.config)[..., places]).tolist()

    def _teacher(self, candidate: Candidate) -> Any:
        return self.checkpoint.block_configs[candidate.layer]

    def _sorted_half(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        if self._sorted is None or self._sorted[0] != candidate.layer:
            tensors, teacher = super().tensors(candidate), self._teacher(candidate)
            order = self._orders.get((candidate.layer, candidate.kind))
            if order is not None:
                size = self._mixin.size(teacher)
                if order.shape[-1] != size or not (order.sort(-1).values == torch.arange(size)).all():
                    raise ExecutionError(
                        f"the order of {candidate.kind} in layer {candidate.layer} is not a permutation of {size} units",
                        hint="the importance stage's result is damaged; delete it and run again",
                    )
                tensors = self._mixin.sort(candidate.layer, tensors, teacher, order, self.config)
            self._sorted = candidate.layer, tensors
        return self._sorted[1]


class PooledWeights(MixInWeights):
    """Heads that are each made from several of the teacher's; no inputs of the map after them are removed."""

    def __init__(self, checkpoint: Teacher, config: Any, mixin: PruningMixIn, how: str) -> None:
        super().__init__(checkpoint, config, mixin, {})
        self._how = how
        self.repairable = False

    def tensors(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """See `Weights.tensors`."""
        half, teacher = Weights.tensors(self, candidate), self._teacher(candidate)
        return pool_heads(self._mixin, self._how, candidate.layer, half, teacher, candidate.block_config, self.config)

    def nested_in(self, candidate: Candidate) -> str | None:
        """See `Weights.nested_in`."""
        return None

    def kept_units(self, candidate: Candidate) -> list[Any] | None:
        """See `Weights.kept_units`; of a unit that is the mean of several there is the list of these."""
        groups = torch.arange(self._mixin.size(self._teacher(candidate))).reshape(candidate.size, -1)
        return (groups if self._how == "average" else groups[:, 0]).tolist()


class SourceWeights(Weights):
    """What a source gives, core's own or a plugin's."""

    def __init__(
        self,
        checkpoint: Teacher,
        config: Any,
        source: CandidateSource,
        origin: Origin,
        mixins: Mapping[str, PruningMixIn],
        supports: frozenset[str],
    ) -> None:
        super().__init__(checkpoint, config)
        self._source = source
        self._origin = origin
        self._mixins = mixins
        self._supports = supports
        self.repairable = source.refits

    def tensors(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """See `Weights.tensors`."""
        if candidate.block_config.half(candidate.half).no_op:
            return {}
        return self._made(candidate, super().tensors(candidate))

    def shapes(self, candidate: Candidate, teacher: Tensors) -> Tensors:
        """See `Weights.shapes`."""
        return self._made(candidate, teacher)

    def repaired(
        self, candidate: Candidate, statistic: ActivationStatistic
    ) -> tuple[dict[str, torch.Tensor], LinearFit]:
        """See `Weights.repaired`: as the source re-fits it."""
        assert isinstance(statistic, ImportanceHook)
        site = self._site(candidate, super().tensors(candidate))
        with self._blaming(candidate):
            tensors, fit = self._source.refitted(site, Offer(candidate.size, candidate.block_config), statistic)
        return self._checked(candidate, tensors), fit

    def watched(self, candidate: Candidate) -> tuple[str, Callable[..., ActivationStatistic]]:
        """See `Weights.watched`: what the source asks for."""
        with self._blaming(candidate):
            found = self._source.watches(self._site(candidate, super().tensors(candidate)))
        check_result(self._origin, f"the candidate source {candidate.kind!r}", found, tuple, "what it re-fits by")
        assert found is not None
        return found

    def _made(self, candidate: Candidate, half: Tensors) -> dict[str, torch.Tensor]:
        with self._blaming(candidate):
            offer = Offer(candidate.size, candidate.block_config)
            found = self._source.tensors(self._site(candidate, half), offer)
        return self._checked(candidate, found)

    def _site(self, candidate: Candidate, half: Tensors) -> HalfSite:
        block = self.checkpoint.block_configs[candidate.layer]
        return HalfSite(candidate.layer, candidate.half, block, self.config, half, self._mixins, self._supports)

    def _blaming(self, candidate: Candidate) -> AbstractContextManager[None]:
        return blaming(self._origin, f"the candidate source {candidate.kind!r}", self._source)

    def _checked(self, candidate: Candidate, found: Tensors) -> dict[str, torch.Tensor]:
        what = f"the candidate source {candidate.kind!r}"
        check_result(self._origin, what, found, Mapping, "tensors by checkpoint name")
        for name, tensor in found.items():
            check_result(self._origin, f"{what}: {name}", tensor, torch.Tensor, "a tensor")
            if not tensor.is_meta and not tensor.isfinite().all():
                raise CheckpointError(f"{what} of {self._origin}: {name} has NaN or infinite numbers")
        return dict(found)
