"""A scoring metric with a setting of its own."""

from __future__ import annotations

from typing import ClassVar

import torch
from anyblock.contract.scoring_metric import ScoringMetric
from anyblock.contract.settings import Section
from pydantic import Field


class SoftenedSettings(Section):
    """Settings of the metric `softened_kl`."""

    temperature: float = Field(default=2.0, gt=0, description="Both models' logits are divided by this number.")


class SoftenedKl(ScoringMetric):
    """KL(teacher || child) of predictions at a higher temperature, which gives unlikely tokens more weight.

    Hinton et al. 2015 (arXiv 1503.02531) compare models so; at temperature 1 it is core's `kl`.
    """

    summary: ClassVar[str] = "KL(teacher || child) at a temperature, mean over tokens, in nats"
    settings: ClassVar[type[Section]] = SoftenedSettings

    def distance(
        self, child: torch.Tensor, teacher: torch.Tensor, next_ids: torch.Tensor | None
    ) -> tuple[float, float]:
        """See `ScoringMetric.distance`."""
        wanted = (teacher.float() / self.settings_given.temperature).log_softmax(-1)
        found = (child.float() / self.settings_given.temperature).log_softmax(-1)
        divergence = (wanted.exp() * (wanted - found)).sum(-1)
        return float(divergence.sum(dtype=torch.float64)), divergence.numel()
