"""From scores to an order of units."""

from __future__ import annotations

import torch


def best_first(scores: torch.Tensor, *, higher_is_better: bool = True) -> torch.Tensor:
    """Return the units from the most to the least important, int64 of the scores' shape.

    A score that is not a number is the worst; equal scores keep their order. Of scores `[experts, channels]` every row
    is ordered by itself.
    """
    values = scores.detach().to(device="cpu", dtype=torch.float64)
    if not higher_is_better:
        values = -values
    missing = values.isnan()
    order = torch.argsort(torch.where(missing, float("-inf"), values), dim=-1, descending=True, stable=True)
    return order.gather(-1, torch.argsort(missing.gather(-1, order).byte(), dim=-1, stable=True))
