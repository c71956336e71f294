"""Evaluation layer by layer, for models of which only a few layers are in memory at once."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import torch

from anyblock.calibration.batches import Batches
from anyblock.evaluation.metrics import TokenMetrics
from anyblock.evaluation.result import EvaluationResult
from anyblock.modeling.device import synchronize
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.runner import Runner, check_vocabularies, enough_memory
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.progress import SILENT, Advance, Progress

_LOGITS_AT_A_TIME: Final = 1 << 24
"""Logits of one forward pass, 64 MiB in float32, unless one sequence has more."""


@torch.no_grad()
def evaluate_layerwise(
    model: LayerwiseModel,
    *,
    batches: Batches,
    teacher: LayerwiseModel | None = None,
    spool: Spool = IN_MEMORY,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Measure what `anyblock.evaluation.evaluate` measures, one layer after the other with all of the text.

    First the model runs, then the teacher, and then the logits of both are compared batch by batch. The result does not depend on
    how many layers are resident or on what is spooled.

    Args:
        model: the child, or any model.
        batches: the text; how much of it runs at a time is decided here.
        teacher: what to compare with.
        spool: where hidden states are kept.
        progress: where to report; the unit is tokens through one layer.

    Raises:
        InputError: a token is outside the vocabulary, or the vocabularies differ.
        ExecutionError: a logit is not finite, or the device has not enough memory.
    """
    child = LayerwiseRunner(model, "child" if teacher is not None else "model")
    reference = None if teacher is None else LayerwiseRunner(teacher, "teacher")
    runners = [runner for runner in (child, reference) if runner is not None]
    check_vocabularies(child, reference)
    for runner in runners:
        runner.check_ids(batches.ids)
    batches = replace(batches, batch_size=child.sequences_for(batches.block_size, _LOGITS_AT_A_TIME))
    labels = Batches(batches.labels, batches.batch_size)
    metrics = TokenMetrics()
    total = batches.tokens * (sum(runner.engine.num_layers for runner in runners) + 1)
    with progress.task("Evaluating", total=total, unit="layer tokens") as advance:
        for runner in runners:
            runner.run_layers(batches, spool, advance)
        for index, part in enumerate(labels):
            logits = [runner.logits_of(index) for runner in runners]
            metrics.update(logits[1] if len(logits) > 1 else None, logits[0], part, where=f"batch {index}")
            advance(part.numel())
    return EvaluationResult.measured(metrics.result(), batches, child, reference)


class LayerwiseRunner(Runner):
    """A model that runs all batches through one layer before the next.

    Args:
        engine: the model.
        name: how an error calls it.
    """

    def __init__(self, engine: LayerwiseModel, name: str) -> None:
        super().__init__(engine.model, name)
        self.engine = engine
        self.device = engine.device
        self._batches: list[Batch] = []
        self._hidden: SpooledTensors = IN_MEMORY.collect()
        self._seconds: list[float] = []

    def run_layers(self, batches: Batches, spool: Spool, advance: Advance) -> None:
        """Run all layers on all batches and keep what the last one gives.

        Raises:
            ExecutionError: the device has not enough memory.
        """
        with enough_memory(self.device, self.name, list(batches[0].shape)):
            self._batches, self._hidden = self.engine.prepare_all(batches, spool)
            self._seconds = [0.0] * len(self._batches)
            for index in range(self.engine.num_layers):
                layer = self.engine.use(index)
                for position, batch in enumerate(self._batches):
                    states = self._hidden[position]
                    start = self._now()
                    states = self.engine.run(index, states, batch, layer=layer)
                    self._seconds[position] += self._now() - start
                    self._hidden[position] = states
                    advance(batch.input_ids.numel())
        self.engine.release()

    def logits_of(self, position: int) -> torch.Tensor:
        """Return a batch's logits, [batch, length, vocabulary].

        Raises:
            ExecutionError: the device has not enough memory.
        """
        batch, states = self._batches[position], self._hidden[position]
        with enough_memory(self.device, self.name, list(batch.input_ids.shape)):
            start = self._now()
            logits = self.engine.logits(states, batch)
            self._timed.append((batch.input_ids.numel(), self._seconds[position] + self._now() - start))
        return logits

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()
