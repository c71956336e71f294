"""Compare a child's next-token distributions with its teacher's, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from anyblock.calibration.packing import IGNORED
from anyblock.errors import ExecutionError, InputError
from anyblock.modeling.logit_chunks import logit_chunks

CHUNK_ELEMENTS = 1 << 24
"""Logits that are held in float32 at a time: 64 MiB a copy."""


@dataclass(frozen=True)
class TokenScores:
    """Averages over tokens, in nats where they are divergences or losses; None where there was no teacher.

    Attributes:
        tokens: positions that `kl`, `top1` and `top5` are averages over.
        predicted: next tokens that the losses are averages over.
        loss: mean negative log-likelihood of the next token under the child.
        teacher_loss: the same under the teacher.
        kl: mean KL(teacher || child).
        top1, top5: share of positions at which the teacher's first choice is among the child's first 1 or 5.
    """

    tokens: int
    predicted: int
    loss: float
    teacher_loss: float | None = None
    kl: float | None = None
    top1: float | None = None
    top5: float | None = None

    @property
    def perplexity(self) -> float:
        """`exp(loss)`."""
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """Return `exp(loss)` for a mean negative log-likelihood in nats; infinite where that exceeds what a float holds."""
    return math.exp(loss) if loss < 709.0 else math.inf


@dataclass
class TokenMetrics:
    """Running totals over tokens.

    Attributes:
        tokens: positions seen.
        predicted: next tokens seen; a sequence of n tokens predicts n - 1 of its own.
        compared: positions for which there was a teacher; 0 or `tokens`.
        loss_sum, teacher_loss_sum, kl_sum: sums in nats.
        top1_hits, top5_hits: positions of agreement.
    """

    tokens: int = 0
    predicted: int = 0
    compared: int = 0
    loss_sum: float = 0.0
    teacher_loss_sum: float = 0.0
    kl_sum: float = 0.0
    top1_hits: int = 0
    top5_hits: int = 0

    def update(
        self,
        teacher_logits: torch.Tensor | None,
        child_logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        where: str = "",
        chunk_elements: int = CHUNK_ELEMENTS,
    ) -> None:
        """Add one batch.

        A position counts for divergence and agreement when its own label is not -100, and for the loss when the *next*
        label is not -100. The teacher's first choice is among the child's first k when fewer than k of the child's
        logits are greater than the child's logit for it, so ties count as agreement.

        Args:
            teacher_logits: `[batch, length, vocabulary]`, or None when only the child is measured.
            child_logits: as `teacher_logits`; both may be of any floating type, and are read chunk by chunk in float32.
            labels: int64 `[batch, length]`, the input tokens themselves (shifted here), -100 for context only.
            where: names the data in an error, for instance `batch 3`.
            chunk_elements: how many logits are converted at a time.

        Raises:
            InputError: the shapes do not agree, as with two vocabularies.
            ExecutionError: a logit is not finite; the message says at which sequence and position.
        """
        _check_shapes(teacher_logits, child_logits, labels)
        length, vocabulary = child_logits.shape[1:]
        own = labels.reshape(-1).to(child_logits.device)
        following = torch.full_like(labels, IGNORED)
        following[:, :-1] = labels[:, 1:]
        following = following.reshape(-1).to(child_logits.device)
        child = child_logits.reshape(-1, vocabulary)
        teacher = None if teacher_logits is None else teacher_logits.reshape(-1, vocabulary)
        with torch.no_grad():
            for part in logit_chunks(len(own), vocabulary, chunk_elements):
                place = _Place(where, part.start, length)
                self._add(None if teacher is None else teacher[part], child[part], own[part], following[part], place)

    def _add(
        self,
        teacher_logits: torch.Tensor | None,
        child_logits: torch.Tensor,
        own: torch.Tensor,
        following: torch.Tensor,
        place: _Place,
    ) -> None:
        counted, predicts = own != IGNORED, following != IGNORED
        target = following.clamp(min=0)[:, None]
        child = _log_softmax(
            child_logits, "the child's logits are" if teacher_logits is not None else "the logits are", place
        )
        self.tokens += int(counted.sum())
        self.predicted += int(predicts.sum())
        self.loss_sum -= _total(child.gather(1, target)[:, 0], predicts, "the loss is", place)
        if teacher_logits is None:
            return
        teacher = _log_softmax(teacher_logits.to(child.device), "the teacher's logits are", place)
        self.compared += int(counted.sum())
        self.teacher_loss_sum -= _total(teacher.gather(1, target)[:, 0], predicts, "the teacher's loss is", place)
        chosen = child.gather(1, teacher.argmax(dim=1, keepdim=True))
        leaders = child.topk(min(5, child.shape[1]), dim=1).values
        self.top1_hits += int((chosen >= leaders[:, :1])[counted].sum())
        self.top5_hits += int((chosen >= leaders[:, -1:])[counted].sum())
        # In place from here on, because a chunk is large.
        ratio = torch.sub(teacher, child, out=child)
        if float(teacher.amin()) == -math.inf:
            ratio.masked_fill_(teacher == -math.inf, 0.0)  # the limit of p log(p / q) for p towards 0
        self.kl_sum += _total(teacher.exp_().mul_(ratio).sum(dim=1), counted, "KL(teacher || child) is", place)

    def result(self) -> TokenScores:
        """Return the averages.

        Raises:
            InputError: nothing was measured, or a teacher was there for a part of the data only.
        """
        if not self.tokens or not self.predicted:
            raise InputError("no tokens were measured", expected="at least one sequence of two tokens")
        if self.compared not in (0, self.tokens):
            raise InputError(f"{self.compared} of {self.tokens} tokens have a teacher", expected="all of them, or none")
        if not self.compared:
            return TokenScores(self.tokens, self.predicted, self.loss_sum / self.predicted)
        return TokenScores(
            tokens=self.tokens,
            predicted=self.predicted,
            loss=self.loss_sum / self.predicted,
            teacher_loss=self.teacher_loss_sum / self.predicted,
            kl=self.kl_sum / self.tokens,
            top1=self.top1_hits / self.tokens,
            top5=self.top5_hits / self.tokens,
        )


@dataclass(frozen=True)
class _Place:
    where: str
    start: int
    length: int

    def describe(self, row: int) -> str:
        sequence, position = divmod(self.start + row, self.length)
        return f"{self.where + ', ' if self.where else ''}sequence {sequence}, position {position}"


def _log_softmax(logits: torch.Tensor, name: str, place: _Place) -> torch.Tensor:
    scores = torch.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
    # A NaN or +inf anywhere in a row makes the whole row NaN; -inf is a legitimate "never".
    bad = scores[:, 0].isnan()
    if bool(bad.any()):
        raise _not_finite(name, place.describe(int(bad.nonzero()[0])))
    return scores


def _total(values: torch.Tensor, counted: torch.Tensor, name: str, place: _Place) -> float:
    values = values.masked_fill(~counted, 0.0)
    bad = ~values.isfinite()
    if bool(bad.any()):
        raise _not_finite(name, place.describe(int(bad.nonzero()[0])))
    return float(values.sum(dtype=torch.float64))


def _not_finite(name: str, where: str) -> ExecutionError:
    return ExecutionError(
        f"{name} not finite at {where}",
        expected="finite numbers",
        hint="check the checkpoint for overflowing weights, or run with dtype float32 or bfloat16",
    )


def _check_shapes(teacher: torch.Tensor | None, child: torch.Tensor, labels: torch.Tensor) -> None:
    if child.dim() != 3 or child.shape[:2] != labels.shape:
        raise InputError(
            f"logits of shape {list(child.shape)} with labels of shape {list(labels.shape)}",
            expected="logits [batch, length, vocabulary] and labels [batch, length]",
        )
    if teacher is None:
        return
    if teacher.shape[-1] != child.shape[-1]:
        raise InputError(
            f"the teacher has a vocabulary of {teacher.shape[-1]} tokens and the child one of {child.shape[-1]}",
            expected="the same vocabulary",
        )
    if teacher.shape != child.shape:
        raise InputError(
            f"the teacher's logits are {list(teacher.shape)}, the child's {list(child.shape)}",
            expected="the same shape",
        )
