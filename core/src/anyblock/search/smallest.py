"""How far a cost can go down or up while the budgets on the others are kept."""

from __future__ import annotations

from dataclasses import replace

from anyblock.search.infeasible import budget_error
from anyblock.search.problem import Problem
from anyblock.search.reach import REACH_SECONDS, Reachable, extreme


def smallest(problem: Problem, cost: str, *, time_limit: float = REACH_SECONDS) -> Reachable:
    """Return the smallest reachable value of a cost while the budgets on the other costs are kept.

    Raises:
        UsageError: when not every option states the cost.
        BudgetError: when the other budgets cannot be kept together.
        ExecutionError: when the time limit leaves it open whether they can.
    """
    return _outermost(problem, cost, largest=False, time_limit=time_limit)


def largest(problem: Problem, cost: str, *, time_limit: float = REACH_SECONDS) -> Reachable:
    """Return the largest reachable value of a cost while the budgets on the other costs are kept.

    Raises:
        UsageError: when not every option states the cost.
        BudgetError: when the other budgets cannot be kept together.
        ExecutionError: when the time limit leaves it open whether they can.
    """
    return _outermost(problem, cost, largest=True, time_limit=time_limit)


def _outermost(problem: Problem, cost: str, *, largest: bool, time_limit: float) -> Reachable:
    others = tuple(budget for budget in problem.budgets if budget.cost != cost)
    found = extreme(problem, cost, others, largest=largest, time_limit=time_limit)
    if found is None:
        raise budget_error(replace(problem, budgets=others), time_limit=time_limit)
    return found
