"""`LayerwiseChild` for adaptations that run, fit or train a child layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.child_layers import ChildLayers
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.metrics import KlDivergence
from anyblock.modeling.spool import IN_MEMORY, Spool
from anyblock.modeling.teacher_targets import TeacherTargets
from anyblock.realize.held_out import held_out_split
from anyblock.realize.layer_cache import FolderStore


@dataclass(frozen=True)
class TeacherBatch:
    """Implements `Targets`."""

    batch: Batch
    final: torch.Tensor | None
    kl: TeacherTargets

    def divergences(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """See `Targets.divergences`."""
        return self.kl.divergences(hidden)

    def distance(self, hidden: torch.Tensor) -> tuple[float, float]:
        """See `Targets.distance`."""
        return self.kl.distance(hidden)


@dataclass(frozen=True)
class ChildByLayers:
    """Implements `LayerwiseChild`.

    Attributes:
        runner: the model that the child is made from.
        reference: the model whose predictions count; `runner` itself unless that has a smaller hidden size.
        weights: the candidates' weights.
        chosen: at most one candidate a subblock.
        batches: the calibration text.
        spools: gives a folder's spool.
    """

    runner: LayerwiseModel
    reference: LayerwiseModel
    weights: CandidateWeights
    chosen: Sequence[Candidate]
    batches: Batches
    spools: Callable[[Path], Spool]

    @property
    def fit_ids(self) -> torch.Tensor:
        """See `LayerwiseChild`."""
        return held_out_split(self.batches)[0].ids

    @property
    def judge_ids(self) -> torch.Tensor:
        """See `LayerwiseChild`."""
        return held_out_split(self.batches)[1].ids

    def layers(self, changed: Mapping[str, torch.Tensor]) -> ChildLayers:
        """See `LayerwiseChild.layers`."""
        return ChildLayers(self.runner, self.weights, self.chosen, changed=changed)

    def spool(self, folder: Path) -> Spool:
        """See `LayerwiseChild.spool`."""
        return self.spools(folder)

    def store(self, folder: Path) -> FolderStore:
        """See `LayerwiseChild.store`."""
        return FolderStore(folder)

    @torch.no_grad()
    def targets(self, ids: torch.Tensor) -> TeacherBatch:
        """See `LayerwiseChild.targets`."""
        prepared = self.reference.prepare(ids)
        hidden = prepared.hidden
        for index in range(self.reference.num_layers):
            hidden = self.reference.run(index, hidden, prepared)
        targets = TeacherTargets(self.reference, prepared, hidden, metric=KlDivergence(), spool=IN_MEMORY)
        if self.reference is self.runner:
            return TeacherBatch(prepared, self.runner.final_hidden(hidden, prepared), targets)
        batch = self.runner.prepare(ids)
        return TeacherBatch(batch, None, targets.seen_by(self.runner, batch))
