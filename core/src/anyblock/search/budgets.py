"""Budgets: bounds on a summed cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from anyblock.errors import UsageError

ROUNDING: Final = 1e-13
"""Relative slack of a budget: sums of a thousand floats are this exact, and counts below 1e12 stay exact."""


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
                f"the budget on {self.cost!r} has no bound", expected="an upper bound, a lower one or both"
            )
        for value in (self.upper, self.lower):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"the budget on {self.cost!r} is {value}", expected="a finite number")
        if self.upper is not None and self.lower is not None and self.lower > self.upper:
            raise UsageError(
                f"the budgets '{self.cost} >= {exact(self.lower)}' and '{self.cost} <= {exact(self.upper)}' "
                "contradict each other",
                expected="a lower bound that is not above the upper one",
            )

    def keeps(self, total: float) -> bool:
        """Return whether a summed cost is within the bounds, up to the rounding of its own summation."""
        over = self.upper is not None and total > self.upper + ROUNDING * abs(self.upper)
        under = self.lower is not None and total < self.lower - ROUNDING * abs(self.lower)
        return not (over or under)

    def __str__(self) -> str:
        if self.lower is None:
            return f"{self.cost} <= {exact(self.upper or 0.0)}"
        if self.upper is None:
            return f"{self.cost} >= {exact(self.lower)}"
        return f"{exact(self.lower)} <= {self.cost} <= {exact(self.upper)}"


def exact(value: float) -> str:
    """Return a number as text that no reader can mistake for another one: `92345344`, `0.125`, `1.5e+20`."""
    return f"{value:.15g}"
