"""Block-local distillation: each changed layer of a child is trained by itself, on the inputs that it gets in the child.

The target is what the teacher's layer gives at the same place of the text, so that a layer also learns to make up for what
is gone before it. The loss of a token is `|child - teacher|^2 / |teacher|^2`: the norm after the last layer makes a model
indifferent to the size of its hidden states. After Puzzle (Bercovich et al. 2024, arXiv 2411.19146, section 3), where all
blocks are trained on the teacher's inputs; here one at a time on the child's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anyblock.contract.adaptation import ChildLayers, LayerRunner, LayerwiseChild
from anyblock.errors import NotFiniteError
from torch import nn

from anyblock_distillation.curve import Curve
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

if TYPE_CHECKING:
    from anyblock.contract.cost import Progress


@dataclass(frozen=True)
class BlockLine:
    """What the training of one layer did, measured on tokens that it was not trained on.

    Attributes:
        layer: its index.
        before: squared error of the layer's output relative to the teacher's, mean over tokens, before the training.
        after: the same of the weights that were kept.
        epoch: after which epoch they were taken; 0 where none was better, so that nothing was changed.
        diverged: the epoch in which loss, gradients or weights became NaN or infinite, which ends the training; None if none.
        curve: how it went, see `Curve`.
    """

    layer: int
    before: float
    after: float
    epoch: int
    diverged: int | None = None
    curve: dict[str, Any] = field(default_factory=dict)


def distill_blocks(
    child: LayerwiseChild,
    *,
    changed: Mapping[str, torch.Tensor],
    settings: TrainingSettings,
    folder: Path,
    progress: Progress,
) -> tuple[Mapping[str, torch.Tensor], list[BlockLine]]:
    """Train the layers of a child one after the other, and keep of each what did best on held-out text.

    Args:
        child: the child.
        changed: tensors by checkpoint name that replace those of the candidates, for instance repaired ones.
        settings: see `TrainingSettings`.
        folder: the stage's folder, in which finished layers are kept; a later call continues after them and gives the same tensors.
        progress: where to report; the unit is tokens through one layer.

    Returns:
        `changed` with the trained tensors in it, in the dtypes of the child's checkpoint, mapped from their files, and one line
        per changed layer.

    Raises:
        UsageError: there is too little text to hold anything out.
        NotFiniteError: the child gives NaN or infinite numbers before any training.
    """
    runner, store, spool = child.runner, child.store(folder / PARTIAL), child.spool(folder)
    train = steps_of(child.fit_ids, settings.batch_size)
    held_out = steps_of(child.judge_ids, settings.batch_size)
    tokens = child.fit_ids.numel() + child.judge_ids.numel()
    held: dict[str, torch.Tensor] = {}  # what replaces the candidates' tensors in the layer that is worked on
    layers = child.layers(held)
    prepared, mine = runner.prepare_all((*train, *held_out), spool)
    theirs = spool.collect(mine)
    lines: list[BlockLine] = []
    with progress.task("Distilling blocks", total=tokens * runner.num_layers, unit="layer tokens") as advance:
        for index in range(runner.num_layers):
            with torch.no_grad():
                for place, batch in enumerate(prepared):
                    theirs[place] = runner.run(index, theirs[place], batch)
            held.clear()
            held.update({name: changed[name] for name in layers.tensors(index) if name in changed})
            if not layers.is_teachers(index):
                found = store.load(index)
                if found is None:
                    layer = _Layer(runner, layers, index, prepared, mine, theirs, [batch.numel() for batch in train])
                    tensors, line = layer.train(settings)
                    found = {**held, **tensors}, [asdict(line)]
                    store.save(index, *found)
                held.update(found[0])
                lines.extend(BlockLine(**row) for row in found[1])
            with torch.no_grad():
                for place, output in enumerate(layers.run(index, mine, prepared)):
                    mine[place] = output
            advance(tokens)
    return store.tensors(), lines


class _Layer:
    """One layer of a child, its inputs and its targets."""

    def __init__(
        self,
        runner: LayerRunner,
        child: ChildLayers,
        index: int,
        batches: Sequence[Any],
        inputs: Any,
        targets: Any,
        tokens: Sequence[int],
    ) -> None:
        self._runner = runner
        self._child = child
        self._index = index
        self._batches = batches
        self._inputs = inputs
        self._targets = targets
        self._tokens = tokens

    def train(self, settings: TrainingSettings) -> tuple[dict[str, torch.Tensor], BlockLine]:
        """Return the best tensors, none where the ones there were best, and what was measured.

        The first batches are trained on, as many as `tokens` says; the others judge.
        """
        steps, curve, seen = len(self._tokens), Curve(), 0
        held_out = range(steps, len(self._batches))
        stored = {name: tensor.dtype for name, tensor in self._child.tensors(self._index).items()}
        kept: dict[str, torch.Tensor] = {}
        with self._child.layer(self._index) as layer:
            parameters = self._child.trainable(self._index)
            before = best = self._error(layer, held_out)
            epoch_of_best, diverged = 0, None
            if parameters:
                curve.judge(0, before)
                optimizer, total = settings.optimizer(parameters), settings.epochs * steps
                for epoch in range(settings.epochs):
                    try:
                        for step, place in enumerate(
                            epoch_order(steps, epoch, settings.seed + self._index), epoch * steps
                        ):
                            rate = learning_rate_at(step, total, settings.learning_rate)
                            set_learning_rate(optimizer, rate)
                            loss = self._backward(layer, optimizer, place)
                            take_step(optimizer, parameters)
                            seen += self._tokens[place]
                            curve.step(step + 1, total, seen, loss, rate)
                        with as_stored(parameters, stored) as values:
                            error = self._error(layer, held_out)
                        curve.judge((epoch + 1) * steps, error)
                    except NotFiniteError:
                        diverged = epoch + 1
                        break
                    if error < best:
                        best, kept, epoch_of_best = error, values, epoch + 1
        return kept, BlockLine(self._index, before, best, epoch_of_best, diverged, curve.to_dict())

    def _backward(self, layer: nn.Module, optimizer: torch.optim.Optimizer, place: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = self._errors(layer, place).mean()
            value = require_finite(float(loss.detach()), "loss of a layer in training")
            loss.backward()  # type: ignore[no-untyped-call]
        return value

    @torch.no_grad()
    def _error(self, layer: nn.Module, places: Sequence[int]) -> float:
        errors = [self._errors(layer, place).double() for place in places]
        mean = float(torch.cat([error.flatten() for error in errors]).mean())
        return require_finite(mean, f"relative error of layer {self._index}")

    def _errors(self, layer: nn.Module, place: int) -> torch.Tensor:
        """Return the relative squared error of every token, [batch, length]."""
        target: torch.Tensor = self._targets[place].float()
        with mixed_precision(self._runner.device, self._runner.dtype):
            output = self._runner.run(self._index, self._inputs[place], self._batches[place], layer=layer)
        return (output.float() - target).square().sum(-1) / target.square().sum(-1).clamp(min=1e-12)
