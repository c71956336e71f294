"""What the teacher says on the scoring text, kept once, and how far a child is from it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Final, Literal, Self

import torch

from anyblock.errors import UsageError
from anyblock.modeling.finite import require_finite_score
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.spool import Spool

Metric = Literal["kl", "cosine", "lm_loss", "mse"]
LOCAL_METRICS: Final = ("mse",)
"""Metrics that compare a block's own output, so that no later layer has to run."""
CHUNK_ELEMENTS: Final = 1 << 25
"""Logits held in float32 at a time: 128 MiB a copy."""


class TeacherTargets:
    """The teacher's final hidden states and logits on one batch.

    Args:
        engine: the teacher.
        batch: the batch.
        hidden: output of the teacher's last layer, [batch, length, hidden].
        metric: what children will be compared by; only what it needs is kept.
        spool: where it is kept.
    """

    def __init__(
        self, engine: LayerwiseModel, batch: Batch, hidden: torch.Tensor, *, metric: Metric, spool: Spool
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._metric = metric
        self._final = spool.collect([engine.final_hidden(hidden, batch)] if metric == "cosine" else [])
        self._logits = spool.collect()
        self._norms: list[torch.Tensor] = []
        if metric == "kl":
            for part in self._parts():
                logits = engine.logits(hidden, batch, keep=part)
                self._logits.append(logits)
                self._norms.append(logits.float().logsumexp(-1))

    def seen_by(self, engine: LayerwiseModel, batch: Batch) -> Self:
        """Return the same targets for children of another model, for instance one with a smaller hidden size.

        Args:
            engine: whose stock tail turns the children's hidden states into logits.
            batch: the same tokens as that engine prepared them.
        """
        if len(self._final):
            raise UsageError(
                "final hidden states of two models cannot be compared", expected="the metric kl or lm_loss"
            )
        other = copy.copy(self)
        other._engine, other._batch = engine, batch
        return other

    def distance(self, hidden: torch.Tensor) -> tuple[float, int]:
        """Return `(sum over tokens, number of tokens)` of the metric for a child's last hidden states.

        Raises:
            ExecutionError: the result is not finite.
        """
        if self._metric == "cosine":
            final = self._engine.final_hidden(hidden, self._batch)
            near = torch.nn.functional.cosine_similarity(final.float(), self._final[0].float(), dim=-1)
            return require_finite_score(float((1 - near).sum(dtype=torch.float64)), self._metric), near.numel()
        if self._metric == "lm_loss":
            return self._loss(hidden)
        return self._divergence(hidden)

    def _parts(self) -> Iterator[slice]:
        batch, length = self._batch.input_ids.shape
        vocabulary = self._engine.config.vocab_size
        rows = max(1, min(length, CHUNK_ELEMENTS // (vocabulary * batch)))
        for start in range(0, length, rows):
            yield slice(start, min(start + rows, length))

    def divergences(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield KL(teacher || child) at every position, chunk by chunk, float32; gradients reach `hidden`.

        With teacher logits t and child logits s it is `sum p (t - s) - lse(t) + lse(s)`.

        Args:
            hidden: a child's last hidden states, [batch, length, hidden].
        """
        for part, teacher, norm in zip(self._parts(), self._logits, self._norms, strict=True):
            child = self._engine.logits(hidden, self._batch, keep=part).float()
            kept = teacher.float()  # the stored tensor itself when it is float32: not to be written to
            weighted = ((kept - norm[..., None]).exp_() * (kept - child)).sum(-1)
            yield weighted - norm + child.logsumexp(-1)

    def _divergence(self, hidden: torch.Tensor) -> tuple[float, int]:
        total, tokens = 0.0, 0
        for part in self.divergences(hidden):
            total += float(part.sum(dtype=torch.float64))
            tokens += part.numel()
        return require_finite_score(total, self._metric), tokens

    def _loss(self, hidden: torch.Tensor) -> tuple[float, int]:
        ids = self._batch.input_ids
        total, tokens = 0.0, 0
        for part in self._parts():
            stop = min(part.stop, ids.shape[1] - 1)
            if part.start >= stop:
                continue
            logits = self._engine.logits(hidden, self._batch, keep=slice(part.start, stop)).float()
            wanted = ids[:, part.start + 1 : stop + 1].to(logits.device)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
            total += float(loss)
            tokens += wanted.numel()
        return require_finite_score(total, self._metric), tokens
