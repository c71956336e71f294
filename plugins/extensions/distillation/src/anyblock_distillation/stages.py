"""Adaptations `distill-blocks` and `distill-model`: the child is trained against its teacher, where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.adaptation import Adaptation, ChosenChild
from anyblock.contract.settings import Section

from anyblock_distillation.blocks import distill_blocks
from anyblock_distillation.settings import BlockDistillationConfig, ModelDistillationConfig
from anyblock_distillation.training import TrainingSettings
from anyblock_distillation.whole import distill_model

if TYPE_CHECKING:
    import torch


class BlockDistillation(Adaptation):
    """Trains every changed layer by itself."""

    summary: ClassVar[str] = "trains every changed layer by itself to give the teacher's output of that layer"
    order: ClassVar[int] = 200
    settings: ClassVar[type[Section]] = BlockDistillationConfig
    settings_path: ClassVar[str] = "distillation.blocks"

    def run(
        self, child: ChosenChild, given: Mapping[str, torch.Tensor], folder: Path
    ) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
        """See `Adaptation.run`."""
        tensors, lines = distill_blocks(
            child.layerwise,
            changed=given,
            settings=_training(self.settings_given, child.seed),
            folder=folder,
            progress=child.progress,
        )
        return tensors, [asdict(line) for line in lines]

    def describe(self, lines: Sequence[Mapping[str, Any]]) -> str:
        """See `Adaptation.describe`."""
        if not lines:
            return ""
        before, after = (sum(line[name] for line in lines) / len(lines) for name in ("before", "after"))
        return (
            f"{sum(bool(line['epoch']) for line in lines)} of {len(lines)} changed layers were trained one by one; the relative "
            f"error of their outputs on held-out tokens went from {before:.3f} to {after:.3f} on average."
        )


class ModelDistillation(Adaptation):
    """Trains all layers together."""

    summary: ClassVar[str] = "trains all layers together against the teacher's predictions and final hidden states"
    order: ClassVar[int] = 300
    settings: ClassVar[type[Section]] = ModelDistillationConfig
    settings_path: ClassVar[str] = "distillation.model"

    def run(
        self, child: ChosenChild, given: Mapping[str, torch.Tensor], folder: Path
    ) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
        """See `Adaptation.run`."""
        tensors, line = distill_model(
            child.layerwise,
            changed=given,
            settings=_training(self.settings_given, child.seed),
            cosine_weight=self.settings_given.cosine_weight,
            folder=folder,
            progress=child.progress,
        )
        return tensors, [asdict(line)]


def _training(settings: BlockDistillationConfig | ModelDistillationConfig, seed: int) -> TrainingSettings:
    return TrainingSettings(settings.epochs, settings.learning_rate, settings.batch_size, seed)
