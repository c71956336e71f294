"""Budgets: bounds on a summed cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from anyblock.errors import UsageError

ROUNDING: Final = 1e-13
"""Relative slack of a budget: sums of a few thousand floats are this exact, and counts below 1e12 stay exact."""


@dataclass(frozen=True)
class Budget:
    """A bound on a summed cost, fixed costs included.

    Attributes:
        cost: the cost's name.
        upper: at most this much; None when only `lower` is given.
        lower: at least this much; None when only `upper` is given.

    Raises:
        UsageError: when neither bound is given, one is not finite, or they contradict each other.
    """

    cost: str
    upper: float | None = None
    lower: float | None = None

    def __post_init__(self) -> None:
        if self.upper is None and self.lower is None:
            raise UsageError(
                f"the budget on {self.cost!r} has no bound", expected="an upper bound, a lower bound or both"
            )
        for value in (self.upper, self.lower):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"the budget on {self.cost!r} is {value}", expected="a finite number")
        if self.upper is not None and self.lower is not None and self.lower > self.upper:
            raise UsageError(
                f"the budgets on {self.cost!r} contradict each other: at least {self.lower:g} and at most {self.upper:g}",
                expected="a lower bound that is not above the upper bound",
            )

    def keeps(self, total: float) -> bool:
        """Return whether a summed cost is within the bounds, up to the rounding of its own summation."""
        over = self.upper is not None and total > self.upper + ROUNDING * abs(self.upper)
        under = self.lower is not None and total < self.lower - ROUNDING * abs(self.lower)
        return not (over or under)

    def __str__(self) -> str:
        if self.lower is None:
            return f"{self.cost} <= {self.upper:g}"
        if self.upper is None:
            return f"{self.cost} >= {self.lower:g}"
        return f"{self.lower:g} <= {self.cost} <= {self.upper:g}"


def merge_budgets(budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """Return one budget a cost, sorted by cost: the range that keeps all that were given on it.

    Raises:
        UsageError: when two budgets on the same cost contradict each other; the message names both.
    """
    merged: dict[str, Budget] = {}
    for budget in budgets:
        known = merged.get(budget.cost)
        merged[budget.cost] = budget if known is None else _both(known, budget)
    return tuple(merged[cost] for cost in sorted(merged))


def _both(first: Budget, second: Budget) -> Budget:
    uppers = [b.upper for b in (first, second) if b.upper is not None]
    lowers = [b.lower for b in (first, second) if b.lower is not None]
    upper, lower = min(uppers, default=None), max(lowers, default=None)
    if upper is not None and lower is not None and lower > upper:
        raise UsageError(
            f"the budgets {str(first)!r} and {str(second)!r} contradict each other", hint="leave one of them out"
        )
    return Budget(first.cost, upper=upper, lower=lower)
