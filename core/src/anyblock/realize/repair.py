"""Least-squares repair of all chosen subblocks in one sweep, on the child's own inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import NO_OP, TEACHER, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.child_layers import ChildLayers
from anyblock.candidates.library import supported
from anyblock.contract.blocks import HALVES, group_name
from anyblock.contract.candidate_source import LinearFit
from anyblock.contract.importance_hook import ActivationStatistic, HookContext
from anyblock.modeling.finite import all_finite, finite_or_none
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.progress import SILENT, Progress
from anyblock.realize.held_out import held_out_every
from anyblock.realize.layer_cache import FolderStore
from anyblock.realize.stream_fit import fit_to_stream


@dataclass(frozen=True)
class RepairLine:
    """What the repair of one subblock did, measured on tokens that it was not fitted on.

    Attributes:
        group: the subblock.
        ridge: the relative ridge that did best; None where plain removal was better, so that nothing was changed.
        plain_error: squared error after plain removal; None where that is not finite, so that nothing was changed. It is of the
            half's output, relative to that output's size, or of the residual stream after the half, relative to what the
            layer has to add to it.
        error: the same after the repair.
    """

    group: str
    ridge: float | None
    plain_error: float | None
    error: float | None


@torch.no_grad()
def repair(
    engine: LayerwiseModel,
    chosen: Sequence[Candidate],
    weights: CandidateWeights,
    batches: Batches,
    *,
    to_stream: bool = False,
    partial: Path | None = None,
    spool: Spool = IN_MEMORY,
    progress: Progress = SILENT,
) -> tuple[Mapping[str, torch.Tensor], list[RepairLine]]:
    """Re-fit the map after the removed units of every chosen subblock, layer by layer.

    Each half is fitted to what the teacher's half would do with the inputs that it gets in the child, so that errors of
    earlier layers are not fitted for inputs that never occur.

    Args:
        engine: the teacher.
        chosen: at most one candidate a subblock.
        weights: their weights.
        batches: calibration text; every fourth batch (or the second of two or three) is held out to judge by.
        to_stream: fit halves to the teacher's residual stream instead, where they have one map that writes to it
            (`fit_to_stream`).
        partial: folder in which finished layers are kept; a later call continues after them, and
            the result is mapped from it. None holds all repaired tensors in memory.
        spool: where hidden states are kept.
        progress: where to report; the unit is tokens through one layer.

    Returns:
        `{tensor name: repaired tensor}` and one line a repaired subblock.

    Raises:
        UsageError: there are fewer than two batches, so that nothing could be held out.
        NotFiniteError: the child gives NaN or infinite numbers.
    """
    sweep = _Sweep(engine, chosen, weights, held_out_every(batches))
    prepared, hidden = engine.prepare_all(batches, spool)
    teacher = _TeacherStream(engine, chosen, weights, spool, hidden) if to_stream else None
    repaired: dict[str, torch.Tensor] = {}
    store = FolderStore(partial)
    lines: list[RepairLine] = []
    with progress.task("Repairing", total=batches.tokens * engine.num_layers, unit="layer tokens") as advance:
        for index in range(engine.num_layers):
            found = store.load(index)
            targets = {} if teacher is None else teacher.advance(index, prepared)
            if found is None:
                found = sweep.fit_layer(index, hidden, prepared, targets)
                store.save(index, *found)
            tensors, rows = found
            lines.extend(RepairLine(**row) for row in rows)
            if partial is None:
                repaired.update(tensors)
            sweep.hold(tensors)
            for position, output in enumerate(sweep.child.run(index, hidden, prepared)):
                hidden[position] = output
            advance(batches.tokens)
    return (repaired if partial is None else store.tensors()), lines


class _TeacherStream:
    """The teacher's hidden states, layer by layer, after each half that a child is fitted to."""

    def __init__(
        self,
        engine: LayerwiseModel,
        chosen: Sequence[Candidate],
        weights: CandidateWeights,
        spool: Spool,
        hidden: SpooledTensors,
    ) -> None:
        self._spool = spool
        self._hidden = spool.collect(iter(hidden))
        self._without_ffn = _without_ffn(engine)
        others = [self._without_ffn.get(index, ()) for index in range(engine.num_layers)]
        self._layers = ChildLayers(engine, weights, (), others=others)
        self._mapped = {
            candidate.group for candidate in chosen if weights.of(candidate).output_map(candidate) is not None
        }

    def advance(self, index: int, batches: Sequence[Batch]) -> dict[str, SpooledTensors]:
        """Run a layer, and return the hidden states after its halves by half, where they can be had and are needed."""
        found: dict[str, SpooledTensors] = {}
        if group_name(index, "attention") in self._mapped and index in self._without_ffn:
            (without,) = self._without_ffn[index]
            found["attention"] = self._spool.collect(self._layers.run(index, self._hidden, batches, instead=without))
        for position, output in enumerate(self._layers.run(index, self._hidden, batches)):
            self._hidden[position] = output
        if group_name(index, "ffn") in self._mapped:
            found["ffn"] = self._hidden
        return found


def _without_ffn(engine: LayerwiseModel) -> dict[int, tuple[Candidate]]:
    """Return by layer, where the family can do without an ffn, the candidate that removes it."""
    if "ffn_no_op" not in supported(engine.family):
        return {}
    blocks = enumerate(engine.block_configs)
    return {index: (Candidate(index, "ffn", NO_OP, 0, block.with_ffn(no_op=True)),) for index, block in blocks}


class _Sweep:
    def __init__(
        self, engine: LayerwiseModel, chosen: Sequence[Candidate], weights: CandidateWeights, every: int
    ) -> None:
        self.engine = engine
        self.weights = weights
        self.every = every
        self.by_group = {candidate.group: candidate for candidate in chosen}
        self.own_ffn = {
            index: Candidate(index, "ffn", TEACHER, 0, block) for index, block in enumerate(engine.block_configs)
        }
        self._held: dict[str, torch.Tensor] = {}
        self.without_ffn = _without_ffn(engine)
        others = [[own, *self.without_ffn.get(index, ())] for index, own in self.own_ffn.items()]
        self.child = ChildLayers(engine, weights, chosen, changed=self._held, others=others)

    def hold(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take these for the repaired tensors of the layer that is worked on; those of others are let go."""
        self._held.clear()
        self._held.update(tensors)

    def fit_layer(
        self, index: int, hidden: SpooledTensors, batches: Sequence[Batch], targets: Mapping[str, SpooledTensors]
    ) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        """Fit both halves of a layer; the ffn sees what the repaired attention gives.

        Args:
            index: the layer.
            hidden: the child's hidden states before it.
            batches: of the same text.
            targets: by half, the teacher's hidden states after it; a half without is fitted to the teacher's half.
        """
        found: dict[str, torch.Tensor] = {}
        lines: list[dict[str, Any]] = []
        for half in HALVES:
            candidate = self.by_group.get(group_name(index, half))
            if candidate is None or not self.weights.of(candidate).repairable:
                continue
            plain = self.weights.subblock(candidate)
            fitted = self._fit_to_stream(candidate, plain, hidden, batches, targets) if half in targets else None
            tensors, fit = fitted or self._fit_to_half(candidate, hidden, batches)
            ridge, before, after = fit.ridge, finite_or_none(fit.plain_error), finite_or_none(fit.error)
            if before is None or after is None or not all_finite(tensors.values()):
                tensors, ridge, after = plain, None, before
            lines.append(asdict(RepairLine(candidate.group, ridge, before, after)))
            found.update({name: t.contiguous() for name, t in tensors.items() if not torch.equal(t, plain[name])})
            self.hold(found)
        return found, lines

    def _fit_to_stream(
        self,
        candidate: Candidate,
        plain: Mapping[str, torch.Tensor],
        hidden: SpooledTensors,
        batches: Sequence[Batch],
        targets: Mapping[str, SpooledTensors],
    ) -> tuple[dict[str, torch.Tensor], LinearFit] | None:
        output = self.weights.of(candidate).output_map(candidate)
        if output is None:
            return None
        index, half = candidate.layer, candidate.half
        with self.child.layer(index, instead=self.without_ffn[index][0] if half == "attention" else None) as layer:
            return fit_to_stream(
                self.engine, index, layer, output, hidden, targets[half], batches, plain, held_out_every=self.every
            )

    def _fit_to_half(
        self, candidate: Candidate, hidden: SpooledTensors, batches: Sequence[Batch]
    ) -> tuple[dict[str, torch.Tensor], LinearFit]:
        if candidate.half == "attention":
            statistic = self._collect(candidate, self.engine.use(candidate.layer), hidden, batches)
        else:
            with self.child.layer(candidate.layer, instead=self.own_ffn[candidate.layer]) as layer:
                statistic = self._collect(candidate, layer, hidden, batches)
        return self.weights.of(candidate).repaired(candidate, statistic)

    def _collect(
        self, candidate: Candidate, layer: nn.Module, hidden: SpooledTensors, batches: Sequence[Batch]
    ) -> ActivationStatistic:
        module, statistic_of = self.weights.of(candidate).watched(candidate)
        block = self.engine.block_configs[candidate.layer]
        context = HookContext(self.engine.config, block, candidate.layer, len(batches))
        statistic = statistic_of(layer.get_submodule(module), context, held_out_every=self.every)
        handle = statistic.attach()
        try:
            for states, batch in zip(hidden, batches, strict=True):
                self.engine.run(candidate.layer, states, batch, layer=layer)
        finally:
            handle.remove()
        return statistic
