"""Block-local distillation: each changed layer of a child is trained by itself, on the inputs that it gets in the child.

The target is what the teacher's layer gives at the same place of the text, so that a layer also learns to make up for what
is gone before it. The loss of a token is `|child - teacher|^2 / |teacher|^2`: the norm after the last layer makes a model
indifferent to the size of its hidden states. After Puzzle (Bercovich et al. 2024, arXiv 2411.19146, section 3), where all
blocks are trained on the teacher's inputs; here one at a time on the child's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.progress import SILENT, Progress
from anyblock.realize.layer_cache import layer_files, load_layer, save_layer
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


@dataclass(frozen=True)
class BlockLine:
    """What the training of one layer did, measured on tokens that it was not trained on.

    Attributes:
        layer: its index.
        before: squared error of the layer's output relative to the teacher's, mean over tokens, before the training.
        after: the same of the weights that were kept.
        epoch: after which epoch they were taken; 0 where none was better, so that nothing was changed.
        diverged: the epoch in which loss, gradients or weights became NaN or infinite, which ends the training; None if none.
    """

    layer: int
    before: float
    after: float
    epoch: int
    diverged: int | None = None


def distill_blocks(
    engine: LayerwiseModel,
    chosen: Sequence[Candidate],
    weights: CandidateWeights,
    batches: Batches,
    *,
    changed: Mapping[str, torch.Tensor],
    settings: TrainingSettings,
    partial: Path | None = None,
    spool: Spool = IN_MEMORY,
    progress: Progress = SILENT,
) -> tuple[Mapping[str, torch.Tensor], list[BlockLine]]:
    """Train the layers of a child one after the other, and keep of each what did best on held-out text.

    Args:
        engine: the teacher.
        chosen: at most one candidate a subblock.
        weights: their weights.
        batches: calibration text; a quarter of the steps is held out.
        changed: tensors by checkpoint name that replace those of the candidates, for instance repaired ones.
        settings: see `TrainingSettings`.
        partial: folder in which finished layers are kept; a later call continues after them and gives the same tensors, which
            are mapped from it. None holds all tensors in memory.
        spool: where hidden states of the teacher and of the child are kept.
        progress: where to report; the unit is tokens through one layer.

    Returns:
        `changed` with the trained tensors in it, in the dtypes of the child's checkpoint, and one line a changed layer.

    Raises:
        UsageError: there is too little text to hold anything out.
        NotFiniteError: the child gives NaN or infinite numbers before any training.
    """
    train, held_out = training_split(batches, settings.batch_size)
    held: dict[str, torch.Tensor] = {}  # what replaces the candidates' tensors in the layer that is worked on
    child = ChildLayers(engine, weights, chosen, changed=held)
    prepared, mine = engine.prepare_all((*train, *held_out), spool)
    theirs = spool.collect(mine)
    result: dict[str, torch.Tensor] = {}
    lines: list[BlockLine] = []
    total = batches.tokens * engine.num_layers
    with progress.task("Distilling blocks", total=total, unit="layer tokens") as advance:
        for index in range(engine.num_layers):
            with torch.no_grad():
                for place, batch in enumerate(prepared):
                    theirs[place] = engine.run(index, theirs[place], batch)
            held.clear()
            held.update({name: changed[name] for name in child.tensors(index) if name in changed})
            if not child.is_teachers(index):
                found = load_layer(partial, index)
                if found is None:
                    layer = _Layer(engine, child, index, prepared, mine, theirs)
                    tensors, line = layer.train(len(train), settings)
                    found = {**held, **tensors}, [asdict(line)]
                    save_layer(partial, index, *found)
                held.update(found[0])
                lines.extend(BlockLine(**row) for row in found[1])
                if partial is None:
                    result.update(found[0])
            with torch.no_grad():
                for place, output in enumerate(child.run(index, mine, prepared)):
                    mine[place] = output
            advance(batches.tokens)
    return (result if partial is None else layer_files(partial)), lines


class _Layer:
    """One layer of a child, its inputs and its targets."""

    def __init__(
        self,
        engine: LayerwiseModel,
        child: ChildLayers,
        index: int,
        batches: Sequence[Batch],
        inputs: SpooledTensors,
        targets: SpooledTensors,
    ) -> None:
        self._engine = engine
        self._child = child
        self._index = index
        self._batches = batches
        self._inputs = inputs
        self._targets = targets

    def train(self, steps: int, settings: TrainingSettings) -> tuple[dict[str, torch.Tensor], BlockLine]:
        """Return the best tensors, none where the ones there were best, and what was measured.

        Args:
            steps: the batches to train on, the first ones; the others judge.
            settings: see `distill_blocks`.
        """
        held_out = range(steps, len(self._batches))
        stored = {name: tensor.dtype for name, tensor in self._child.tensors(self._index).items()}
        kept: dict[str, torch.Tensor] = {}
        with self._child.layer(self._index) as layer:
            parameters = self._child.trainable(self._index)
            before = best = self._error(layer, held_out)
            epoch_of_best, diverged = 0, None
            if parameters:
                optimizer, total = settings.optimizer(parameters), settings.epochs * steps
                for epoch in range(settings.epochs):
                    try:
                        for number, place in enumerate(epoch_order(steps, epoch, settings.seed + self._index)):
                            rate = learning_rate_at(epoch * steps + number, total, settings.learning_rate)
                            set_learning_rate(optimizer, rate)
                            self._backward(layer, optimizer, place)
                            take_step(optimizer, parameters)
                        with as_stored(parameters, stored) as values:
                            error = self._error(layer, held_out)
                    except NotFiniteError:
                        diverged = epoch + 1
                        break
                    if error < best:
                        best, kept, epoch_of_best = error, values, epoch + 1
        return kept, BlockLine(self._index, before, best, epoch_of_best, diverged)

    def _backward(self, layer: nn.Module, optimizer: torch.optim.Optimizer, place: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = self._errors(layer, place).mean()
            require_finite_score(float(loss.detach()), "loss of a layer in training")
            loss.backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _error(self, layer: nn.Module, places: Sequence[int]) -> float:
        errors = [self._errors(layer, place).double() for place in places]
        mean = float(torch.cat([error.flatten() for error in errors]).mean())
        return require_finite_score(mean, f"relative error of layer {self._index}")

    def _errors(self, layer: nn.Module, place: int) -> torch.Tensor:
        """Return the relative squared error of every token, [batch, length]."""
        target = self._targets[place].float()
        with mixed_precision(self._engine.device, self._engine.dtype):
            output = self._engine.run(self._index, self._inputs[place], self._batches[place], layer=layer)
        return (output.float() - target).square().sum(-1) / target.square().sum(-1).clamp(min=1e-12)
