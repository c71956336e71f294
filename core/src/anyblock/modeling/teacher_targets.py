"""What the teacher says on the scoring text, kept once, and how far a child is from it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Final, Self

import torch

from anyblock.contract.scoring_metric import ScoringMetric
from anyblock.errors import UsageError
from anyblock.modeling.finite import require_finite_score
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.logit_chunks import logit_chunks
from anyblock.modeling.metrics import kl_divergence
from anyblock.modeling.spool import Spool

CHUNK_ELEMENTS: Final = 1 << 25
"""Logits held in float32 at a time: 128 MiB a copy."""


class TeacherTargets:
    """What a metric sees of the teacher on one batch.

    Args:
        engine: the teacher.
        batch: the batch.
        hidden: output of the teacher's last layer, [batch, length, hidden].
        metric: what children will be compared by; `sees` is `logits` or `final_hidden`.
        spool: where it is kept.
    """

    def __init__(
        self, engine: LayerwiseModel, batch: Batch, hidden: torch.Tensor, *, metric: ScoringMetric, spool: Spool
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._metric = metric
        self._kept = spool.collect()
        self._norms: list[torch.Tensor] = []
        for part in self._parts():
            seen = self._seen(hidden, part)
            self._kept.append(seen)
            if metric.is_kl:
                self._norms.append(seen.float().logsumexp(-1))

    def seen_by(self, engine: LayerwiseModel, batch: Batch) -> Self:
        """Return the same targets for children of another model, for instance one with a smaller hidden size.

        Args:
            engine: whose stock tail turns the children's hidden states into logits.
            batch: the same tokens as that engine prepared them.
        """
        if self._metric.sees == "final_hidden":
            raise UsageError("final hidden states of two models cannot be compared", expected="a metric on logits")
        other = copy.copy(self)
        other._engine, other._batch = engine, batch
        return other

    def distance(self, hidden: torch.Tensor) -> tuple[float, float]:
        """Return `(sum, weight)` of the metric for a child's last hidden states, see `ScoringMetric.distance`.

        Raises:
            ExecutionError: the result is not finite.
        """
        total, weight = 0.0, 0.0
        if self._metric.is_kl:
            for divergence in self.divergences(hidden):
                total += float(divergence.sum(dtype=torch.float64))
                weight += divergence.numel()
        else:
            for part, teacher in zip(self._parts(), self._kept, strict=True):
                next_ids = self._batch.input_ids[:, part.start + 1 : part.stop + 1]
                added, of = self._metric.distance(self._seen(hidden, part), teacher, next_ids)
                total, weight = total + added, weight + of
        return require_finite_score(total, type(self._metric).__name__), weight

    def divergences(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield KL(teacher || child) at every position, chunk by chunk, float32; gradients reach `hidden`.

        Args:
            hidden: a child's last hidden states, [batch, length, hidden].
        """
        for part, teacher, norm in zip(self._parts(), self._kept, self._norms, strict=True):
            yield kl_divergence(self._seen(hidden, part).float(), teacher.float(), norm)

    def _seen(self, hidden: torch.Tensor, part: slice) -> torch.Tensor:
        if self._metric.sees == "final_hidden":
            return self._engine.final_hidden(hidden, self._batch)
        return self._engine.logits(hidden, self._batch, keep=part)

    def _parts(self) -> Iterator[slice]:
        batch, length = self._batch.input_ids.shape
        if self._metric.sees == "final_hidden":
            return iter((slice(0, length),))
        return logit_chunks(length, self._engine.config.vocab_size * batch, CHUNK_ELEMENTS)
