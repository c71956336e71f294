"""Whole-model distillation: all layers of a child trained together against the teacher's predictions.

The loss is KL(teacher || child) plus 1 - cosine of the two models' final hidden states, means over tokens (the combination
of Puzzle, Bercovich et al. 2024, arXiv 2411.19146, section 5). Embeddings and head stay the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.child_layers import ChildLayers
from anyblock.errors import NotFiniteError
from anyblock.modeling.finite import require_finite_score
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.metrics import KlDivergence
from anyblock.modeling.spool import IN_MEMORY
from anyblock.modeling.teacher_targets import TeacherTargets
from anyblock.progress import SILENT, Progress
from anyblock.realize.training import (
    TrainingSettings,
    as_stored,
    epoch_order,
    learning_rate_at,
    mixed_precision,
    set_learning_rate,
    take_step,
    training_split,
)
from anyblock.realize.training_state import TrainingState

SAVE_EVERY = 16
"""Steps after which the state of the training is kept, so that a stopped run loses no more than these."""


@dataclass(frozen=True)
class ModelLine:
    """What the training did, measured on tokens that it was not trained on.

    Attributes:
        before: KL(teacher || child) in nats a token before the training.
        after: the same of the weights that were kept.
        epoch: after which epoch they were taken; 0 where none was better, so that nothing was changed.
        diverged: the epoch in which loss, gradients or weights became NaN or infinite, which ends the training; None if none.
    """

    before: float
    after: float
    epoch: int
    diverged: int | None = None


def distill_model(
    engine: LayerwiseModel,
    reference: LayerwiseModel,
    chosen: Sequence[Candidate],
    weights: CandidateWeights,
    batches: Batches,
    *,
    changed: Mapping[str, torch.Tensor],
    settings: TrainingSettings,
    cosine_weight: float,
    partial: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[dict[str, torch.Tensor], ModelLine]:
    """Train all layers of a child together, and keep what did best on held-out text.

    Args:
        engine: the model that the child is made from.
        reference: the model whose predictions it learns; `engine` itself unless that has a smaller hidden size.
        chosen: at most one candidate a subblock.
        weights: their weights.
        batches: calibration text; a quarter of the batches is held out.
        changed: tensors by checkpoint name that replace those of the candidates.
        settings: see `TrainingSettings`.
        cosine_weight: weight of the cosine, which is added to the divergence; without effect where `reference` is another model.
        partial: folder in which the state is kept; a later call continues there and gives the same tensors.
        progress: where to report; the unit is tokens.

    Returns:
        `changed` with the trained tensors in it, in the dtypes of the child's checkpoint, and what was measured.

    Raises:
        UsageError: there is too little text to hold anything out.
        NotFiniteError: the child gives NaN or infinite numbers before any training.
    """
    train, held_out = training_split(batches, settings.batch_size)
    child = ChildLayers(engine, weights, chosen, changed=changed)
    stored = {name: t.dtype for index in range(engine.num_layers) for name, t in child.tensors(index).items()}
    with ExitStack() as lent:
        layers = [lent.enter_context(child.layer(index)) for index in range(engine.num_layers)]
        parameters: dict[str, nn.Parameter] = {}
        for index in range(engine.num_layers):
            parameters.update(child.trainable(index))
        student = _Student(engine, layers, reference, cosine_weight if reference is engine else 0.0)
        optimizer = settings.optimizer(parameters)
        state = TrainingState(None if partial is None else partial / "state.safetensors", parameters, optimizer)
        if not state.load():
            state.before = state.best_error = student.divergence(held_out)
        total, diverged = settings.epochs * len(train), None
        with progress.task("Distilling the model", total=settings.epochs * train.tokens, unit="tokens") as advance:
            advance(state.step * train.tokens // len(train))
            while state.step < total:
                epoch, number = divmod(state.step, len(train))
                place = epoch_order(len(train), epoch, settings.seed)[number]
                set_learning_rate(optimizer, learning_rate_at(state.step, total, settings.learning_rate))
                try:
                    student.backward(train[place], optimizer)
                    take_step(optimizer, parameters)
                    state.step += 1
                    if state.step % len(train) == 0:
                        with as_stored(parameters, stored) as values:
                            state.judge(student.divergence(held_out), values, epoch + 1)
                except NotFiniteError:  # not kept in the state: a resumed run gets here again
                    diverged = epoch + 1
                    break
                if state.step % SAVE_EVERY == 0 or state.step % len(train) == 0:
                    state.save()
                advance(train[place].numel())
    return {**changed, **state.best}, ModelLine(state.before, state.best_error, state.best_epoch, diverged)


class _Student:
    """A child whose layers hold trainable weights, and its teacher."""

    def __init__(
        self, engine: LayerwiseModel, layers: Sequence[nn.Module], teacher: LayerwiseModel, cosine_weight: float
    ) -> None:
        self._engine = engine
        self._layers = layers
        self._teacher = teacher
        self._cosine_weight = cosine_weight

    def backward(self, ids: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Give the weights the gradients of the loss on the tokens `ids`, [batch, length].

        Raises:
            NotFiniteError: the divergence is not finite.
        """
        optimizer.zero_grad(set_to_none=True)
        targets, theirs, batch = self._targets(ids)
        with torch.enable_grad(), mixed_precision(self._engine.device, self._engine.dtype):
            last = self._run(batch)
            # The head is run chunk by chunk on a copy, so that the logits of one chunk are held at a time.
            leaf = last.detach().requires_grad_()
            for part in targets.divergences(leaf):
                loss = part.sum() / ids.numel()
                require_finite_score(float(loss.detach()), "kl in training")
                loss.backward()  # type: ignore[no-untyped-call]
            if self._cosine_weight:
                mine = self._engine.final_hidden(leaf, batch)
                far = 1 - nn.functional.cosine_similarity(mine.float(), theirs.float(), dim=-1)
                (self._cosine_weight * far.mean()).backward()  # type: ignore[no-untyped-call]
            last.backward(leaf.grad)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def divergence(self, batches: Batches) -> float:
        """Return KL(teacher || child) in nats a token."""
        total = 0.0
        for ids in batches:
            targets, _, batch = self._targets(ids)
            with mixed_precision(self._engine.device, self._engine.dtype):
                total += targets.distance(self._run(batch))[0]
        return total / batches.tokens

    @torch.no_grad()
    def _targets(self, ids: torch.Tensor) -> tuple[TeacherTargets, torch.Tensor, Batch]:
        prepared = self._teacher.prepare(ids)
        hidden = prepared.hidden
        for index in range(self._teacher.num_layers):
            hidden = self._teacher.run(index, hidden, prepared)
        targets = TeacherTargets(self._teacher, prepared, hidden, metric=KlDivergence(), spool=IN_MEMORY)
        if self._teacher is self._engine:
            return targets, self._engine.final_hidden(hidden, prepared), prepared
        batch = self._engine.prepare(ids)
        return targets.seen_by(self._engine, batch), hidden, batch

    def _run(self, batch: Batch) -> torch.Tensor:
        hidden = batch.hidden
        for index, layer in enumerate(self._layers):
            hidden = self._engine.run(index, hidden, batch, layer=layer)
        return hidden
