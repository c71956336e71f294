"""Exact scores: replace one subblock, run only the layers after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.contract.scoring_metric import ScoringMetric
from anyblock.errors import AnyBlockError, ExecutionError
from anyblock.modeling.finite import require_finite_output
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.linear_head import LinearTargets, find_linear_head
from anyblock.modeling.metrics import KlDivergence
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.modeling.teacher_targets import TeacherTargets
from anyblock.progress import SILENT, Progress
from anyblock.scoring.layer_outputs import LayerOutputs

Targets = TeacherTargets | LinearTargets
"""What children's last hidden states are compared with."""


class CandidateScorer:
    """Scores each candidate as the only change to the teacher.

    The teacher runs once, when the first layer is asked for; its input of every layer is kept. A candidate at layer `i` then
    costs the layers after `i`, its share of layer `i` (`LayerOutputs`) and the head, never the layers before it. A layer's
    scores do not depend on which others are asked for.

    Args:
        engine: the teacher.
        candidates: what to score; candidates of the teacher's own shape are left out by the caller.
        weights: their weights.
        batches: the scoring text.
        metric: what scores are; KL(teacher || child) when not given.
        spool: where hidden states and teacher logits are kept.
        progress: where the teacher's run is reported.
    """

    def __init__(
        self,
        engine: LayerwiseModel,
        candidates: Sequence[Candidate],
        weights: CandidateWeights,
        batches: Batches,
        *,
        metric: ScoringMetric | None = None,
        spool: Spool = IN_MEMORY,
        progress: Progress = SILENT,
    ) -> None:
        self._engine, self._candidates, self._weights, self._batches = engine, candidates, weights, batches
        self._metric = metric or KlDivergence()
        self._spool, self._progress = spool, progress

    @cached_property
    def _trace(self) -> TeacherTrace:
        return TeacherTrace(
            self._engine, self._batches, metric=self._metric, spool=self._spool, progress=self._progress
        )

    @cached_property
    def _outputs(self) -> LayerOutputs:
        return LayerOutputs(self._engine, self._candidates, self._weights, self._trace.batches, self._spool)

    @torch.no_grad()
    def layer(self, index: int) -> dict[str, float]:
        """Return `{candidate key: score}` of the candidates of one layer.

        Raises:
            ExecutionError: a score is not finite; the message names the candidate.
        """
        trace = self._trace
        mine = self._outputs.by_layer[index]
        outputs = {candidate.key: self._spool.collect() for candidate in mine}
        for candidate, _, output in self._outputs.run(index, trace.inputs[index], outputs):
            with naming(candidate):
                require_finite_output(output, index)
            outputs[candidate.key].append(output)
        scores = {}
        for candidate in mine:
            with naming(candidate):
                scores[candidate.key] = trace.score(index, outputs.pop(candidate.key))
        return scores


@contextmanager
def naming(candidate: Candidate) -> Iterator[None]:
    """Let errors within this context begin with the candidate's key."""
    try:
        yield
    except AnyBlockError as error:
        raise ExecutionError(f"{candidate.key}: {error.what}", expected=error.expected, hint=error.hint) from error


class TeacherTrace:
    """The teacher's hidden states at the input of every layer, and its targets, on all batches.

    Args:
        engine: the teacher.
        batches: the text.
        metric: what children will be compared by.
        spool: where large tensors are kept.
        same_head: whether all children have the teacher's own head; its predictions then take less room where it is linear.
        progress: where to report; the unit is tokens.
    """

    def __init__(
        self,
        engine: LayerwiseModel,
        batches: Batches,
        *,
        metric: ScoringMetric,
        spool: Spool,
        same_head: bool = True,
        progress: Progress = SILENT,
    ) -> None:
        self.engine = engine
        self.metric = metric
        self.spool = spool
        self.targets: list[Targets] = []
        total = batches.tokens * (engine.num_layers + 1)
        with progress.task("Running the teacher", total=total, unit="layer tokens") as advance:
            self.batches, first = engine.prepare_all(batches, spool)
            self.inputs: list[SpooledTensors] = [first]
            for index in range(engine.num_layers):
                self.inputs.append(spool.collect())
                for position, batch in enumerate(self.batches):
                    hidden = engine.run(index, self.inputs[index][position], batch)
                    self.inputs[-1].append(hidden)
                    advance(batch.input_ids.numel())
            # Rounding to fewer bits cancels out only between logits that were both rounded.
            compact = metric.is_kl and same_head and engine.dtype == torch.float32
            head = find_linear_head(engine) if compact else None
            for batch, hidden in zip(self.batches, self.inputs[-1], strict=True):
                if head is not None:
                    self.targets.append(LinearTargets(engine, head, batch, hidden, spool=spool))
                elif metric.sees != "block_output":
                    self.targets.append(TeacherTargets(engine, batch, hidden, metric=metric, spool=spool))
                advance(batch.input_ids.numel())

    def score(self, index: int, outputs: SpooledTensors) -> float:
        """Return the metric of the model in which layer `index` has these outputs, one a batch.

        The outputs are replaced by those of the last layer.

        Raises:
            ExecutionError: a hidden state or the metric is not finite, or the teacher's output is zero everywhere.
        """
        total, count = 0.0, 0.0
        if self.metric.sees == "block_output":
            for output, expected in zip(outputs, self.inputs[index + 1], strict=True):
                value, weight = self.metric.distance(output, expected, None)
                total, count = total + value, count + weight
        else:
            # All batches go through a layer before the next one, whose weights may have to be loaded for it.
            for later in range(index + 1, self.engine.num_layers):
                for position, batch in enumerate(self.batches):
                    outputs[position] = self.engine.run(later, outputs[position], batch)
            for target, states in zip(self.targets, outputs, strict=True):
                value, tokens = target.distance(states)
                total, count = total + value, count + tokens
        if not count:
            raise ExecutionError("the teacher's output is zero everywhere", hint="the checkpoint's weights are damaged")
        return total / count
