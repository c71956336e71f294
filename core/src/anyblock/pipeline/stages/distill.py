"""Adaptations `distill-blocks` and `distill-model`: the child is trained against its teacher, where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.config.distillation import BlockDistillationConfig, ModelDistillationConfig
from anyblock.contract.adaptation import Adaptation, ChosenChild
from anyblock.contract.settings import Section
from anyblock.pipeline.stages.adapt import PARTIAL, Adapting, helped
from anyblock.realize.distill_blocks import distill_blocks
from anyblock.realize.distill_model import distill_model
from anyblock.realize.training import TrainingSettings

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
        assert isinstance(child, Adapting)
        tensors, lines = distill_blocks(
            child.context.teacher.engine,
            child.chosen,
            child.weights,
            child.batches,
            changed=given,
            settings=_training(self.settings_given, child.seed),
            partial=folder / PARTIAL,
            spool=child.context.spool(folder),
            progress=child.progress,
        )
        return tensors, [asdict(line) for line in lines]

    def describe(self, lines: Sequence[Mapping[str, Any]]) -> str:
        """See `Adaptation.describe`."""
        return helped(lines, "changed layers were trained one by one", "epoch", "before", "after")


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
        assert isinstance(child, Adapting)
        tensors, line = distill_model(
            child.context.teacher.engine,
            child.context.reference.engine,
            child.chosen,
            child.weights,
            child.batches,
            changed=given,
            settings=_training(self.settings_given, child.seed),
            cosine_weight=self.settings_given.cosine_weight,
            partial=folder / PARTIAL,
            progress=child.progress,
        )
        return tensors, [asdict(line)]


def _training(settings: BlockDistillationConfig | ModelDistillationConfig, seed: int) -> TrainingSettings:
    return TrainingSettings(settings.epochs, settings.learning_rate, settings.batch_size, seed)
