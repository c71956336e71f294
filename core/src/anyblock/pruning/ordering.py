"""From scores to an order of units."""

from __future__ import annotations

import torch


def best_first(scores: torch.Tensor) -> torch.Tensor:
    """Return the units from the most to the least important, int64 of the scores' shape.

    A score that is not a number is the worst; equal scores keep their order. Of scores `[experts, channels]` every row
    is ordered by itself.
    """
    values = scores.detach().to(device="cpu", dtype=torch.float64)
    missing = values.isnan()
    order = torch.argsort(torch.where(missing, float("-inf"), values), dim=-1, descending=True, stable=True)
    return order.gather(-1, torch.argsort(missing.gather(-1, order).byte(), dim=-1, stable=True))


def within_groups(order: torch.Tensor, groups: int) -> torch.Tensor:
    """Return an order in which every group of units keeps its place, and its units are in the given order.

    Args:
        order: unit numbers, int64 `[units]`; unit `u` is of group `u * groups // units`.
        groups: how many groups there are, equally large.
    """
    return order[torch.argsort(order // (len(order) // groups), stable=True)]


def first_of_groups(units: int, size: int, groups: int) -> torch.Tensor:
    """Return the places of the first `size / groups` units of every group, int64 `[size]`."""
    starts = torch.arange(groups) * (units // groups)
    return (starts.unsqueeze(1) + torch.arange(size // groups)).reshape(-1)
