"""Core's scoring metrics."""

from __future__ import annotations

from typing import ClassVar, Final

import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from anyblock.contract.scoring_metric import ScoringMetric


class KlDivergence(ScoringMetric):
    """KL(teacher || child), mean over tokens, in nats."""

    summary: ClassVar[str] = "KL(teacher || child), mean over tokens, in nats"
    is_kl: ClassVar[bool] = True

    def distance(
        self, child: torch.Tensor, teacher: torch.Tensor, next_ids: torch.Tensor | None
    ) -> tuple[float, float]:
        """See `ScoringMetric.distance`."""
        kept = teacher.float()
        divergence = kl_divergence(child.float(), kept, kept.logsumexp(-1))
        return float(divergence.sum(dtype=torch.float64)), divergence.numel()


class Cosine(ScoringMetric):
    """1 - cosine of the final hidden states, mean over tokens."""

    summary: ClassVar[str] = "1 - cosine of the final hidden states, mean over tokens"
    sees = "final_hidden"

    def distance(
        self, child: torch.Tensor, teacher: torch.Tensor, next_ids: torch.Tensor | None
    ) -> tuple[float, float]:
        """See `ScoringMetric.distance`."""
        near = cosine_similarity(child.float(), teacher.float(), dim=-1)
        return float((1 - near).sum(dtype=torch.float64)), near.numel()


class LanguageModelLoss(ScoringMetric):
    """Mean negative log-likelihood of the text's next token, in nats; the teacher is not looked at."""

    summary: ClassVar[str] = "mean negative log-likelihood of the text, in nats"

    def distance(
        self, child: torch.Tensor, teacher: torch.Tensor, next_ids: torch.Tensor | None
    ) -> tuple[float, float]:
        """See `ScoringMetric.distance`."""
        assert next_ids is not None
        logits = child[:, : next_ids.shape[1]].float()
        if not next_ids.numel():
            return 0.0, 0
        loss = cross_entropy(logits.flatten(0, 1), next_ids.to(logits.device).flatten(), reduction="sum")
        return float(loss), next_ids.numel()


class BlockError(ScoringMetric):
    """Squared error of the block's output over the mean square of the teacher's."""

    summary: ClassVar[str] = "squared error of the block's output over the mean square of the teacher's"
    sees = "block_output"

    def distance(
        self, child: torch.Tensor, teacher: torch.Tensor, next_ids: torch.Tensor | None
    ) -> tuple[float, float]:
        """See `ScoringMetric.distance`."""
        expected = teacher.float()
        error = (child.float() - expected).square().sum(dtype=torch.float64)
        return float(error), float(expected.square().sum(dtype=torch.float64))


METRICS: Final[dict[str, type[ScoringMetric]]] = {
    "kl": KlDivergence,
    "cosine": Cosine,
    "lm_loss": LanguageModelLoss,
    "mse": BlockError,
}
"""Core's metrics by name."""


def kl_divergence(child: torch.Tensor, teacher: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Return KL(teacher || child) at every position, float32; gradients reach `child`.

    With teacher logits t and child logits s it is `sum p (t - s) - lse(t) + lse(s)`.

    Args:
        child: the child's logits, float32 [..., vocabulary].
        teacher: the teacher's, float32; not written to.
        norm: the teacher's `logsumexp`, [...].
    """
    weighted = ((teacher - norm[..., None]).exp_() * (teacher - child)).sum(-1)
    return weighted - norm + child.logsumexp(-1)
