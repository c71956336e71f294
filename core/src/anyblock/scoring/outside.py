"""Exact scores of storage types of the embeddings and the head: round one of them, and run the whole model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from anyblock.calibration.batches import Batches
from anyblock.candidates.storage import Storage
from anyblock.contract.scoring_metric import ScoringMetric
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.spool import Spool, SpooledTensors
from anyblock.modeling.teacher_targets import TeacherTargets
from anyblock.progress import Progress


@torch.no_grad()
def outside_scores(
    engine: LayerwiseModel,
    storage: Storage,
    types: Mapping[str, Collection[str]],
    batches: Batches,
    *,
    metric: ScoringMetric,
    spool: Spool,
    progress: Progress,
) -> dict[str, float]:
    """Return `{GROUP@TYPE: score}`: the metric where one group outside the layers is rounded, and nothing else changes.

    Args:
        engine: the teacher.
        storage: the run's types.
        types: which to score, by group.
        batches: the scoring text.
        metric: on logits or final hidden states.
        spool: where hidden states and the teacher's logits are kept.
        progress: where to report.

    Raises:
        ExecutionError: a rounded model gives numbers that are not finite.
    """
    prepared, first = engine.prepare_all(batches, spool)
    teacher, found = _last(engine, prepared, first, spool), {}
    with progress.task("Scoring embeddings and head", total=sum(map(len, types.values())), unit="types") as advance:
        for group, names in types.items():
            tensors = engine.checkpoint.load(group)
            for name in names:
                rounded, total, weight = storage.rounded(name, tensors), 0.0, 0.0
                # Layers may get more than hidden states of the embeddings (Gemma 3n).
                with engine.exchanged(rounded):
                    changed, first = engine.prepare_all(batches, spool)
                outputs = teacher if group == "lm_head" else _last(engine, changed, first, spool)
                for batch, expected, output in zip(prepared, teacher, outputs, strict=True):
                    target = TeacherTargets(engine, batch, expected, metric=metric, spool=spool)
                    with engine.exchanged(rounded):
                        value, tokens = target.distance(output)
                    total, weight = total + value, weight + tokens
                found[f"{group}@{name}"] = total / weight
                advance(1)
    return found


def _last(engine: LayerwiseModel, batches: Sequence[Batch], hidden: SpooledTensors, spool: Spool) -> SpooledTensors:
    """Return what the last layer gives, one tensor for each batch."""
    for index in range(engine.num_layers):
        hidden = spool.collect(engine.run(index, states, batch) for states, batch in zip(hidden, batches, strict=True))
    return hidden
