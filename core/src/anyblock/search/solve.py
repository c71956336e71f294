"""Solve a problem: the best choice, or several that differ from each other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from typing import Literal, overload

from anyblock.errors import BudgetError, ExecutionError, UsageError
from anyblock.search.engine import Limits, Outcome, optimise
from anyblock.search.instance import Compiled, Instance, compile_problem, restrict
from anyblock.search.problem import Problem
from anyblock.search.solution import PROOF_GAP, Solution, Status, relative_gap


@overload
def solve(
    problem: Problem,
    *,
    gap: float = ...,
    time_limit: float = ...,
    node_limit: int | None = ...,
    fixed: Mapping[str, str] | None = ...,
    forbidden: Mapping[str, Set[str]] | None = ...,
    count: Literal[1] = ...,
    min_distance: int = ...,
    seed: int = ...,
) -> Solution: ...


@overload
def solve(
    problem: Problem,
    *,
    gap: float = ...,
    time_limit: float = ...,
    node_limit: int | None = ...,
    fixed: Mapping[str, str] | None = ...,
    forbidden: Mapping[str, Set[str]] | None = ...,
    count: int,
    min_distance: int = ...,
    seed: int = ...,
) -> Solution | list[Solution]: ...


def solve(
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
) -> Solution | list[Solution]:
    """Return the solution of least score, or, for `count` above one, a list of several."""
    solutions = solve_diverse(
        problem,
        gap=gap,
        time_limit=time_limit,
        node_limit=node_limit,
        fixed=fixed,
        forbidden=forbidden,
        count=count,
        min_distance=min_distance,
        seed=seed,
    )
    return solutions[0] if count == 1 else solutions


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
    """Return up to `count` solutions, best first, any two of which differ in at least `min_distance` groups."""
    import numpy as np

    if count < 1:
        raise UsageError(f"{count} solutions were asked for", expected="at least one")
    compiled = compile_problem(problem)
    instance = restrict(problem, compiled, fixed=fixed or {}, forbidden=forbidden or {})
    solutions: list[Solution] = []
    while len(solutions) < count:
        begin = time.perf_counter()
        outcome = optimise(instance, Limits(gap, time_limit, node_limit, seed))
        if outcome.chosen is None:
            if solutions:
                break
            if outcome.bound == np.inf:
                raise BudgetError("no choice keeps the budgets: " + ", ".join(map(str, problem.budgets)))
            raise ExecutionError(
                f"no solution was found within {time_limit:g} s, and it is not proved that there is none"
            )
        solutions.append(_solution(problem, compiled, instance, outcome, gap, time.perf_counter() - begin))
        row = np.isin(instance.index, outcome.chosen).astype(np.float64)
        instance = instance.with_row(row, float(instance.groups - min_distance), f"cut {len(solutions)}")
    return solutions


def _solution(
    problem: Problem, compiled: Compiled, instance: Instance, outcome: Outcome, gap: float, seconds: float
) -> Solution:
    assert outcome.chosen is not None
    choices = compiled.choices(outcome.chosen)
    score = problem.score(choices)
    bound = min(outcome.bound, score)
    reached = relative_gap(score, bound)
    status: Status = "limit" if reached > gap else "proven" if reached <= PROOF_GAP else "gap"
    prices: dict[str, float] = {}
    for name, price in zip(instance.names, outcome.multipliers, strict=True):
        cost = name.removeprefix("-")
        if cost in {budget.cost for budget in problem.budgets}:
            prices[cost] = prices.get(cost, 0.0) + float(price)
    return Solution(choices, score, bound, reached, status, problem.costs(choices), seconds, outcome.nodes, prices)
