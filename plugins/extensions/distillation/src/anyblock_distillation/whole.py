"""Whole-model distillation: all layers of a child trained together against the teacher's predictions.

The loss is KL(teacher || child) plus 1 - cosine of the two models' final hidden states, means over tokens (the combination
of Puzzle, Bercovich et al. 2024, arXiv 2411.19146, section 5). Embeddings and head stay the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anyblock.contract.adaptation import LayerwiseChild
from anyblock.errors import NotFiniteError
from torch import nn

from anyblock_distillation.training import (
    PARTIAL,
    TrainingSettings,
    as_stored,
    epoch_order,
    learning_rate_at,
    mixed_precision,
    require_finite,
    set_learning_rate,
    steps_of,
    take_step,
)
from anyblock_distillation.training_state import TrainingState

if TYPE_CHECKING:
    from anyblock.contract.cost import Progress

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
        curve: how it went, see `Curve`; the cosine is not in the loss.
    """

    before: float
    after: float
    epoch: int
    diverged: int | None = None
    curve: dict[str, Any] = field(default_factory=dict)


def distill_model(
    child: LayerwiseChild,
    *,
    changed: Mapping[str, torch.Tensor],
    settings: TrainingSettings,
    cosine_weight: float,
    folder: Path,
    progress: Progress,
) -> tuple[dict[str, torch.Tensor], ModelLine]:
    """Train all layers of a child together, and keep what did best on held-out text.

    Args:
        child: the child.
        changed: tensors by checkpoint name that replace those of the candidates.
        settings: see `TrainingSettings`.
        cosine_weight: weight of the cosine, which is added to the divergence; without effect where the teacher has another
            hidden size.
        folder: the stage's folder, in which the state is kept; a later call continues there and gives the same tensors.
        progress: where to report; the unit is tokens.

    Returns:
        `changed` with the trained tensors in it, in the dtypes of the child's checkpoint, and what was measured.

    Raises:
        UsageError: there is too little text to hold anything out.
        NotFiniteError: the child gives NaN or infinite numbers before any training.
    """
    train = steps_of(child.fit_ids, settings.batch_size)
    held_out = steps_of(child.judge_ids, settings.batch_size)
    tokens = child.fit_ids.numel()
    own, count = child.layers(changed), child.runner.num_layers
    stored = {name: t.dtype for index in range(count) for name, t in own.tensors(index).items()}
    with ExitStack() as lent:
        layers = [lent.enter_context(own.layer(index)) for index in range(count)]
        parameters: dict[str, nn.Parameter] = {}
        for index in range(count):
            parameters.update(own.trainable(index))
        student = _Student(child, layers, cosine_weight)
        optimizer = settings.optimizer(parameters)
        state = TrainingState(folder / PARTIAL / "state.safetensors", parameters, optimizer)
        if not state.load():
            state.before = state.best_error = student.divergence(held_out)
            state.curve.judge(0, state.before)
        total, diverged = settings.epochs * len(train), None
        with progress.task("Distilling the model", total=settings.epochs * tokens, unit="tokens") as advance:
            advance(state.step * tokens // len(train))
            while state.step < total:
                epoch, number = divmod(state.step, len(train))
                place = epoch_order(len(train), epoch, settings.seed)[number]
                rate = learning_rate_at(state.step, total, settings.learning_rate)
                set_learning_rate(optimizer, rate)
                try:
                    loss = student.backward(train[place], optimizer)
                    take_step(optimizer, parameters)
                    state.step += 1
                    state.tokens += train[place].numel()
                    state.curve.step(state.step, total, state.tokens, loss, rate)
                    if state.step % len(train) == 0:
                        with as_stored(parameters, stored) as values:
                            state.judge(student.divergence(held_out), values, epoch + 1)
                except NotFiniteError:  # not kept in the state: a resumed run gets here again
                    diverged = epoch + 1
                    break
                if state.step % SAVE_EVERY == 0 or state.step % len(train) == 0:
                    state.save()
                advance(train[place].numel())
    line = ModelLine(state.before, state.best_error, state.best_epoch, diverged, state.curve.to_dict())
    return {**changed, **state.best}, line


class _Student:
    """A child whose layers hold trainable weights, and its teacher."""

    def __init__(self, child: LayerwiseChild, layers: Sequence[nn.Module], cosine_weight: float) -> None:
        self._child = child
        self._runner = child.runner
        self._layers = layers
        self._cosine_weight = cosine_weight

    def backward(self, ids: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
        """Give the weights the gradients of the loss on the tokens `ids`, [batch, length], and return the KL in it.

        Raises:
            NotFiniteError: the divergence is not finite.
        """
        optimizer.zero_grad(set_to_none=True)
        targets, divergence = self._child.targets(ids), 0.0
        with torch.enable_grad(), mixed_precision(self._runner.device, self._runner.dtype):
            last = self._run(targets.batch)
            # The head is run chunk by chunk on a copy, so that the logits of one chunk are held at a time.
            leaf = last.detach().requires_grad_()
            for part in targets.divergences(leaf):
                loss = part.sum() / ids.numel()
                divergence += require_finite(float(loss.detach()), "kl in training")
                loss.backward()  # type: ignore[no-untyped-call]
            if self._cosine_weight and targets.final is not None:
                mine = self._runner.final_hidden(leaf, targets.batch)
                far = 1 - nn.functional.cosine_similarity(mine.float(), targets.final.float(), dim=-1)
                (self._cosine_weight * far.mean()).backward()  # type: ignore[no-untyped-call]
            last.backward(leaf.grad)  # type: ignore[no-untyped-call]
        return divergence

    @torch.no_grad()
    def divergence(self, batches: Sequence[torch.Tensor]) -> float:
        """Return KL(teacher || child) in nats per token."""
        total = 0.0
        for ids in batches:
            targets = self._child.targets(ids)
            with mixed_precision(self._runner.device, self._runner.dtype):
                total += targets.distance(self._run(targets.batch))[0]
        return total / sum(ids.numel() for ids in batches)

    def _run(self, batch: Any) -> torch.Tensor:
        hidden: torch.Tensor = batch.hidden
        for index, layer in enumerate(self._layers):
            hidden = self._runner.run(index, hidden, batch, layer=layer)
        return hidden
