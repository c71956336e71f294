"""Budgets: bounds on a summed cost, from numbers or from what a person writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyblock.errors import ConfigError, UsageError, nearest

if TYPE_CHECKING:
    from anyblock.config.budget import Bound

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
    uppers = [budget.upper for budget in (first, second) if budget.upper is not None]
    lowers = [budget.lower for budget in (first, second) if budget.lower is not None]
    upper, lower = min(uppers, default=None), max(lowers, default=None)
    if upper is not None and lower is not None and lower > upper:
        raise UsageError(
            f"the budgets '{first}' and '{second}' contradict each other", hint="leave one of them out, or widen it"
        )
    return Budget(first.cost, upper=upper, lower=lower)


def parse_budget(text: str, teacher: Mapping[str, float]) -> Budget:
    """Read a budget as a person writes it.

    Args:
        text: `params=0.8x`, `params=80%`, `params=100M`, `memory=2.5GiB`, `latency<=12ms`, `kv_heads>=40`,
            `params=90M..100M`. `=` is an upper bound, except that `throughput=500` asks for at least so much.
        teacher: the teacher's value of every cost that can be budgeted, in the unit of `anyblock.costs.registry`; `x` and
            `%` are shares of it.

    Raises:
        UsageError: when the text is no budget, or its cost is unknown or not among the teacher's.
    """
    from anyblock.config.budget import merge_entries, parse_bound

    try:
        ((cost, (value, _)),) = merge_entries([(text, "")]).items()
        bound = parse_bound(cost, value)
    except ConfigError as error:
        raise UsageError(error.what, expected=error.expected, hint=error.hint) from error
    return resolve_bound(bound, teacher)


def resolve_bound(bound: Bound, teacher: Mapping[str, float]) -> Budget:
    """Return a bound in absolute numbers.

    Args:
        bound: as it was written; `x` and `%` are shares of the teacher.
        teacher: the teacher's value of every cost that can be budgeted.

    Raises:
        UsageError: when the cost is not among the teacher's.
    """
    if bound.cost not in teacher:
        raise UsageError(
            f"the teacher's {bound.cost!r} is not known, so it cannot be budgeted",
            expected=f"one of {', '.join(sorted(teacher))}",
            hint=nearest(bound.cost, teacher),
        )
    own = teacher[bound.cost]
    return Budget(
        bound.cost,
        upper=None if bound.upper is None else bound.upper.resolve(own),
        lower=None if bound.lower is None else bound.lower.resolve(own),
    )


def parse_budgets(texts: Iterable[str], teacher: Mapping[str, float]) -> tuple[Budget, ...]:
    """Read several budgets and merge those on the same cost, as `merge_budgets` does.

    Args:
        texts: see `parse_budget`.
        teacher: see `parse_budget`.

    Raises:
        UsageError: as `parse_budget` and `merge_budgets`.
    """
    return merge_budgets([parse_budget(text, teacher) for text in texts])
