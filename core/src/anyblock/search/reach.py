"""The extreme values of a cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from anyblock.errors import ExecutionError
from anyblock.search.budgets import Budget
from anyblock.search.instance import compile_problem
from anyblock.search.problem import Problem
from anyblock.search.proof.engine import Limits, optimise

REACH_SECONDS: Final = 10.0
"""Time limit for one smallest or largest value."""


@dataclass(frozen=True)
class Reachable:
    """The extreme value of a cost.

    Attributes:
        cost: the cost's name.
        value: the most extreme value found, fixed costs included; `choices` reaches it.
        bound: nothing more extreme than this is possible; equal to `value` when `proven`.
        proven: whether `value` is known to be the extreme.
        choices: `{group key: option key}`.
    """

    cost: str
    value: float
    bound: float
    proven: bool
    choices: dict[str, str]


def extreme(
    problem: Problem, cost: str, budgets: Iterable[Budget], *, largest: bool, time_limit: float
) -> Reachable | None:
    """Return the smallest or largest value of a cost under these budgets instead of the problem's own.

    Returns:
        None when no choice keeps the budgets.

    Raises:
        UsageError: when not every option states the cost.
        ExecutionError: when the time limit leaves it open whether any choice keeps the budgets.
    """
    sign = -1.0 if largest else 1.0
    fixed = problem.fixed_costs.get(cost, 0.0)
    problem.check_stated(cost)
    groups = tuple(
        replace(group, options=tuple(replace(option, score=sign * option.costs[cost]) for option in group.options))
        for group in problem.groups
    )
    compiled = compile_problem(Problem(groups, tuple(budgets), problem.fixed_costs))
    outcome = optimise(compiled.instance, Limits(gap=0.0, seconds=time_limit))
    if outcome.chosen is None:
        if outcome.bound == math.inf:
            return None
        raise ExecutionError(
            f"whether any choice keeps {', '.join(map(str, budgets))} was not settled within {time_limit:g} s",
            hint="raise the time limit",
        )
    choices = compiled.choices(outcome.chosen)
    value = problem.costs(choices)[cost]
    proven = outcome.bound == outcome.score
    return Reachable(cost, value, value if proven else sign * outcome.bound + fixed, proven, choices)
