"""Stages `distill-blocks` and `distill-model`: the child is trained against its teacher, where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.config.distillation import BlockDistillationConfig, ModelDistillationConfig
from anyblock.pipeline.stages.adapt import PARTIAL, Adapted, Adapting
from anyblock.realize.distill_blocks import distill_blocks
from anyblock.realize.distill_model import distill_model
from anyblock.realize.training import TrainingSettings

if TYPE_CHECKING:
    import torch

BLOCKS: Final = "distill-blocks"
MODEL: Final = "distill-model"


def run_block_distillation(child: Adapting, given: Adapted) -> Adapted:
    """Return the tensors with every changed layer trained by itself; what was given when that is switched off."""
    settings = child.context.config.distillation.blocks
    return child.run(BLOCKS, given, settings.to_dict(), _blocks) if settings.enabled else given


def run_model_distillation(child: Adapting, given: Adapted) -> Adapted:
    """Return the tensors with all layers trained together; what was given when that is switched off."""
    settings = child.context.config.distillation.model
    return child.run(MODEL, given, settings.to_dict(), _model) if settings.enabled else given


def _blocks(
    child: Adapting, given: Mapping[str, torch.Tensor], folder: Path
) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
    context = child.context
    tensors, lines = distill_blocks(
        context.engine,
        child.chosen,
        child.weights,
        child.batches,
        changed=given,
        settings=_training(context.config.distillation.blocks, context.config.seed),
        partial=folder / PARTIAL,
        spool=context.spool(folder),
        progress=context.progress,
    )
    return tensors, [asdict(line) for line in lines]


def _model(
    child: Adapting, given: Mapping[str, torch.Tensor], folder: Path
) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
    context, settings = child.context, child.context.config.distillation.model
    tensors, line = distill_model(
        context.engine,
        child.chosen,
        child.weights,
        child.batches,
        changed=given,
        settings=_training(settings, context.config.seed),
        cosine_weight=settings.cosine_weight,
        reference=None if context.before is None else context.before.engine,
        partial=folder / PARTIAL,
        progress=context.progress,
    )
    return tensors, [asdict(line)]


def _training(settings: BlockDistillationConfig | ModelDistillationConfig, seed: int) -> TrainingSettings:
    return TrainingSettings(settings.epochs, settings.learning_rate, settings.batch_size, seed)
