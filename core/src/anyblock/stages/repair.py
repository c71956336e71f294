"""Adaptation `repair`: the weights that remain are re-fitted to make up for what was removed, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.candidates.candidate import TEACHER
from anyblock.config.pruning import RepairConfig
from anyblock.contract.adaptation import Adaptation, ChosenChild
from anyblock.contract.settings import Section
from anyblock.realize.repair import repair
from anyblock.stages.adapt import PARTIAL, Adapting, helped

if TYPE_CHECKING:
    import torch


class LeastSquaresRepair(Adaptation):
    """Re-fits the map after the removed units by least squares."""

    summary: ClassVar[str] = "re-fits the maps after removed units by least squares, without training"
    order: ClassVar[int] = 100
    settings: ClassVar[type[Section]] = RepairConfig
    settings_path: ClassVar[str] = "pruning.repair"

    @property
    def enabled(self) -> bool:
        """See `Adaptation.enabled`."""
        return bool(self.settings_given.method != "none")

    def run(
        self, child: ChosenChild, given: Mapping[str, torch.Tensor], folder: Path
    ) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
        """See `Adaptation.run`."""
        assert isinstance(child, Adapting)  # core's own stages run layer by layer
        changed = [candidate for candidate in child.chosen if candidate.kind != TEACHER]
        tensors, lines = repair(
            child.context.teacher.engine,
            changed,
            child.weights,
            child.batches,
            to_stream=self.settings_given.target == "stream",
            partial=folder / PARTIAL,
            spool=child.context.spool(folder),
            progress=child.progress,
        )
        return tensors, [asdict(line) for line in lines]

    def describe(self, lines: Sequence[Mapping[str, Any]]) -> str:
        """See `Adaptation.describe`."""
        return helped(lines, "narrowed subblocks were re-fitted by least squares", "ridge", "plain_error", "error")
