"""Stage `repair`: the weights that remain are re-fitted to make up for what was removed, without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.candidates.candidate import TEACHER
from anyblock.pipeline.stages.adapt import PARTIAL, Adapted, Adapting
from anyblock.realize.repair import repair

if TYPE_CHECKING:
    import torch

STAGE: Final = "repair"


def run_repair(child: Adapting, given: Adapted) -> Adapted:
    """Return the repaired tensors; what was given when the repair is switched off."""
    if child.context.config.pruning.repair.method == "none":
        return given
    return child.run(STAGE, given, {}, _repair)


def _repair(
    child: Adapting, _: Mapping[str, torch.Tensor], folder: Path
) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
    changed = [candidate for candidate in child.chosen if candidate.kind != TEACHER]
    context = child.context
    tensors, lines = repair(
        context.engine,
        changed,
        child.weights,
        child.batches,
        partial=folder / PARTIAL,
        spool=context.spool(folder),
        progress=context.progress,
    )
    return tensors, [asdict(line) for line in lines]
