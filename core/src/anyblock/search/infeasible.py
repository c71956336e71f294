"""Say why no choice keeps the budgets, and which values a cost can have while the others are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from anyblock.errors import BudgetError, ExecutionError
from anyblock.search.budgets import Budget, exact
from anyblock.search.problem import Problem
from anyblock.search.reach import REACH_SECONDS, Reachable, extreme

_Nearest = Reachable | Literal["none", "unsettled"]


@dataclass(frozen=True)
class _Side:
    """One bound of one budget, and the values its cost can have.

    Attributes:
        bound: the bound, as a budget with one side.
        given: the other bound on the same cost, which is kept in any case; None without one.
        alone: the value nearest to the allowed ones when no other budget counts; `none` when the other bound of its range
            cannot be kept, `unsettled` when time ran out.
        together: the same while the other budgets are kept; `none` when they exclude each other.
        others: whether there are other budgets.
    """

    bound: Budget
    given: Budget | None
    alone: _Nearest
    together: _Nearest
    others: bool

    @property
    def impossible(self) -> bool:
        """Whether this bound cannot be kept even without the other budgets."""
        if isinstance(self.alone, Reachable):
            return self.alone.proven and not self.bound.keeps(self.alone.value)
        return self.alone == "none"

    @property
    def kept_alone(self) -> bool:
        """Whether this bound can be kept without the other budgets."""
        return isinstance(self.alone, Reachable) and self.bound.keeps(self.alone.value)

    def __str__(self) -> str:
        name = "largest" if self.bound.upper is None else "smallest"
        if self.given is not None:
            name = f"{name} value with {self.given} that is reachable"
        else:
            name = f"{name} reachable value"
        if self.alone == "unsettled":
            return f"  {self.bound}: the {name} was not settled in time"
        if self.alone == "none":
            return f"  {self.bound}: no value with {self.given} is reachable"
        text = f"  {self.bound}: the {name} is {_value(self.alone)}"
        if not self.others:
            return text
        if self.together == "none":
            return f"{text}; the other budgets exclude each other"
        if self.together == "unsettled":
            return f"{text}; whether the other budgets can be kept was not settled in time"
        return f"{text}, and {_value(self.together)} while the other budgets are kept"

    def relaxed(self) -> str:
        """Return the nearest bound that can be kept together with the other budgets, or `""` when none is known."""
        if not isinstance(self.together, Reachable) or self.bound.keeps(self.together.value):
            return ""
        return f"{self.bound.cost} {'>=' if self.bound.upper is None else '<='} {exact(self.together.value)}"


def budget_error(problem: Problem, *, time_limit: float = REACH_SECONDS) -> BudgetError:
    """Return the error for a problem that no choice solves.

    For every bound it gives the value that was asked for, the nearest reachable value when this budget is the only one,
    and the nearest while the others are kept.

    Args:
        problem: the problem.
        time_limit: seconds for each of these values; one that it leaves open is given as a range.
    """
    sides = [side for budget in problem.budgets for side in _sides(problem, budget, time_limit)]
    impossible = [str(side.bound) for side in sides if side.impossible]
    if impossible:
        what = f"no choice of options keeps {' or '.join(impossible)}"
    elif all(side.kept_alone for side in sides):
        what = "each budget can be kept alone, but not all of them together"
    else:
        what = "no choice of options keeps all budgets"
    relaxed = [text for text in (side.relaxed() for side in sides) if text]
    hint = f"allow {' or '.join(relaxed)}" if relaxed else "relax several budgets"
    return BudgetError("\n".join([what, *map(str, sides)]), hint=f"{hint}, or offer more options")


def _sides(problem: Problem, budget: Budget, time_limit: float) -> Iterator[_Side]:
    others = tuple(other for other in problem.budgets if other is not budget)
    bounds = (
        (None if budget.lower is None else Budget(budget.cost, lower=budget.lower)),
        (None if budget.upper is None else Budget(budget.cost, upper=budget.upper)),
    )
    for bound, opposite in (bounds, bounds[::-1]):
        if bound is None:
            continue
        own = () if opposite is None else (opposite,)
        alone = _nearest(problem, bound, own, time_limit)
        together = _nearest(problem, bound, (*own, *others), time_limit) if others else alone
        yield _Side(bound, opposite, alone, together, bool(others))


def _nearest(problem: Problem, bound: Budget, budgets: Sequence[Budget], time_limit: float) -> _Nearest:
    try:
        found = extreme(problem, bound.cost, budgets, largest=bound.upper is None, time_limit=time_limit)
    except ExecutionError:
        return "unsettled"
    return found or "none"


def _value(reachable: Reachable) -> str:
    if reachable.proven:
        return exact(reachable.value)
    low, high = sorted((reachable.value, reachable.bound))
    return f"between {exact(low)} and {exact(high)}"


def smallest(problem: Problem, cost: str, *, time_limit: float = REACH_SECONDS) -> Reachable:
    """Return the smallest reachable value of a cost while the budgets on the other costs are kept.

    Raises:
        UsageError: when not every option states the cost.
        BudgetError: when the other budgets cannot be kept together.
        ExecutionError: when the time limit leaves it open whether they can.
    """
    return _outermost(problem, cost, largest=False, time_limit=time_limit)


def largest(problem: Problem, cost: str, *, time_limit: float = REACH_SECONDS) -> Reachable:
    """Return the largest reachable value; all else as for `smallest`."""
    return _outermost(problem, cost, largest=True, time_limit=time_limit)


def _outermost(problem: Problem, cost: str, *, largest: bool, time_limit: float) -> Reachable:
    others = tuple(budget for budget in problem.budgets if budget.cost != cost)
    found = extreme(problem, cost, others, largest=largest, time_limit=time_limit)
    if found is None:
        raise budget_error(replace(problem, budgets=others), time_limit=time_limit)
    return found
