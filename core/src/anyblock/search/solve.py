"""Solve a problem: the best choice, or several that differ from one another."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyblock.errors import ExecutionError, UsageError
from anyblock.search.infeasible import budget_error
from anyblock.search.instance import Compiled, Instance, compile_problem
from anyblock.search.problem import Problem, restrict
from anyblock.search.proof.engine import Limits, Outcome, optimise
from anyblock.search.reach import REACH_SECONDS
from anyblock.search.solution import PROOF_GAP, Solution, Status, relative_gap

if TYPE_CHECKING:
    from anyblock.search.instance import Ints


def solve(
    problem: Problem,
    *,
    gap: float = PROOF_GAP,
    time_limit: float = 60.0,
    node_limit: int | None = None,
    fixed: Mapping[str, str] | None = None,
    forbidden: Mapping[str, Set[str]] | None = None,
    seed: int = 0,
) -> Solution:
    """Return the solution of least score; arguments and errors are those of `solve_diverse`."""
    return solve_diverse(
        problem, gap=gap, time_limit=time_limit, node_limit=node_limit, fixed=fixed, forbidden=forbidden, seed=seed
    )[0]


def solve_diverse(
    problem: Problem,
    *,
    gap: float = PROOF_GAP,
    time_limit: float = 60.0,
    node_limit: int | None = None,
    fixed: Mapping[str, str] | None = None,
    forbidden: Mapping[str, Set[str]] | None = None,
    count: int = 1,
    min_distance: int = 1,
    seed: int = 0,
) -> list[Solution]:
    """Return several solutions, any two of which differ in at least `min_distance` groups, best first.

    The first is the best of all; each further one is the best among those that differ enough from the ones before it. Equal
    problems give equal choices, whatever the order of their groups and options, unless the time limit decides.

    Args:
        problem: groups, budgets and fixed costs.
        gap: stop when the score is within this relative distance of the bound. At the default and below, nothing better
            than the solution exists (`proven`); a larger one may stop earlier (`gap`).
        time_limit: seconds for each solution; the answer may come a little later. A solution that the limit stops is
            `limit`, and its gap says how far from the bound it is.
        node_limit: HiGHS opens at most so many branch-and-bound nodes a solution, which is reproducible where a time
            limit is not.
        fixed: `{group key: option key}` that every solution has.
        forbidden: `{group key: option keys}` that no solution has.
        count: how many solutions; fewer are returned when no more exist, or time runs out before another is found.
        min_distance: in how many groups any two solutions differ at least.
        seed: HiGHS's random seed.

    Raises:
        UsageError: for an argument out of range, or an unknown group or option.
        BudgetError: when no choice keeps the budgets; the message gives the smallest reachable value for each.
        ExecutionError: when no solution was found in time and it is not known that there is none, or HiGHS failed.
    """
    _check(problem, gap, time_limit, node_limit, count, min_distance)
    problem = restrict(problem, fixed=fixed or {}, forbidden=forbidden or {})
    compiled = compile_problem(problem)
    cuts = _Cuts(compiled.instance, min_distance)
    solutions: list[Solution] = []
    while len(solutions) < count:
        begin = time.perf_counter()
        outcome = optimise(cuts.instance, Limits(gap, time_limit, node_limit, seed))
        if outcome.chosen is None:
            if not solutions:
                raise _nothing(problem, outcome, time_limit)
            break
        solutions.append(_solution(problem, compiled, outcome.chosen, outcome, gap, time.perf_counter() - begin))
        cuts.add(outcome.chosen)
    return sorted(solutions, key=lambda solution: solution.score)


@dataclass
class _Cuts:
    """The instance, with a row for each solution that the next one has to differ from."""

    instance: Instance
    min_distance: int
    count: int = field(default=0, init=False)

    def add(self, chosen: Ints) -> None:
        """Ask later solutions to differ from this one."""
        import numpy as np

        row = np.zeros(len(self.instance.score))
        row[chosen] = 1.0
        self.count += 1
        self.instance = self.instance.with_row(row, float(self.instance.groups - self.min_distance), "")


def _check(
    problem: Problem, gap: float, time_limit: float, node_limit: int | None, count: int, min_distance: int
) -> None:
    if not (math.isfinite(gap) and gap >= 0):
        raise UsageError(f"gap is {gap}", expected="a finite number that is not negative")
    if math.isnan(time_limit) or time_limit <= 0:
        raise UsageError(f"time_limit is {time_limit}", expected="seconds, above zero")
    if node_limit is not None and node_limit < 0:
        raise UsageError(f"node_limit is {node_limit}", expected="a number of nodes that is not negative")
    if count < 1:
        raise UsageError(f"count is {count}", expected="at least one solution")
    if not 1 <= min_distance <= len(problem.groups):
        raise UsageError(
            f"min_distance is {min_distance}", expected=f"between 1 and the number of groups, {len(problem.groups)}"
        )


def _nothing(problem: Problem, outcome: Outcome, time_limit: float) -> Exception:
    if outcome.bound == math.inf:
        return budget_error(problem, time_limit=min(time_limit, REACH_SECONDS))
    return ExecutionError(
        f"no choice that keeps {', '.join(map(str, problem.budgets))} was found within {time_limit:g} s, "
        "and it is not settled that there is none",
        hint="raise the time limit or relax a budget",
    )


def _solution(
    problem: Problem, compiled: Compiled, chosen: Ints, outcome: Outcome, gap: float, seconds: float
) -> Solution:
    choices = compiled.choices(chosen)
    score = problem.score(choices)
    # The engine's score is the same sum in another order; a bound that met it meets this one too.
    bound = score if outcome.bound == outcome.score else min(outcome.bound, score)
    reached = relative_gap(score, bound)
    status: Status = "limit" if reached > gap else "proven" if reached <= PROOF_GAP else "gap"
    prices: dict[str, float] = {}
    for budget in problem.budgets:
        named = zip(compiled.instance.names, outcome.multipliers, strict=False)
        prices[budget.cost] = sum(price for name, price in named if name.removeprefix("-") == budget.cost)
    return Solution(choices, score, bound, reached, status, problem.costs(choices), seconds, outcome.nodes, prices)
