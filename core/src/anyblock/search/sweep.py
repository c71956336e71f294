"""A front of solutions: one budget takes several values, the others stay."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anyblock.errors import BudgetError, UsageError
from anyblock.search.budgets import Budget
from anyblock.search.problem import Problem
from anyblock.search.solution import PROOF_GAP, Solution, relative_gap
from anyblock.search.solve import solve


@dataclass(frozen=True)
class SweepPoint:
    """The best solution for one value of a budget.

    Attributes:
        cost: the cost that was swept.
        value: the upper bound that was asked for.
        solution: None when no choice keeps the budgets.
        reason: why there is no solution; empty when there is one.
    """

    cost: str
    value: float
    solution: Solution | None
    reason: str = ""


def sweep(
    problem: Problem,
    cost: str,
    values: Iterable[float],
    *,
    gap: float = PROOF_GAP,
    time_limit: float = 60.0,
    seed: int = 0,
) -> list[SweepPoint]:
    """Solve the problem for several upper bounds on one cost, from the tightest to the loosest.

    A looser budget never gets a worse score: where a limit stopped its search early, it takes over the solution of the
    tighter one, with its own bound.

    Args:
        problem: a budget of its own on `cost` is replaced; the others are kept.
        cost: the cost to bound.
        values: upper bounds.
        gap: as in `solve`.
        time_limit: as in `solve`, for each value.
        seed: as in `solve`.

    Raises:
        UsageError: when there are no values, one is not finite, or not every option states the cost.
        ExecutionError: as in `solve`.
    """
    wanted = sorted(set(values))
    if not wanted:
        raise UsageError(f"no values to sweep {cost!r} over", expected="at least one")
    others = tuple(budget for budget in problem.budgets if budget.cost != cost)
    points: list[SweepPoint] = []
    best: Solution | None = None
    for value in wanted:
        bounded = replace(problem, budgets=(*others, Budget(cost, upper=value)))
        try:
            found = solve(bounded, gap=gap, time_limit=time_limit, seed=seed)
        except BudgetError as error:
            points.append(SweepPoint(cost, value, None, error.what))
            continue
        if best is not None and best.score < found.score:
            found = _carry(best, found)
        best = found
        points.append(SweepPoint(cost, value, found))
    return points


def _carry(best: Solution, found: Solution) -> Solution:
    bound = min(found.bound, best.score)
    reached = relative_gap(best.score, bound)
    status = found.status if found.status != "proven" or reached <= PROOF_GAP else "gap"
    return replace(
        found, choices=best.choices, score=best.score, costs=best.costs, bound=bound, gap=reached, status=status
    )


def sweep_rows(points: Sequence[SweepPoint]) -> list[dict[str, Any]]:
    """Return a flat row a point: what was asked, what was found, and every cost of it."""
    rows = []
    for point in points:
        row: dict[str, Any] = {"cost": point.cost, "asked": point.value}
        if point.solution is None:
            row["status"] = "infeasible"
        else:
            found = point.solution
            row |= {"status": found.status, "score": found.score, "bound": found.bound}
            row |= {"gap": found.gap, "seconds": found.seconds}
            row |= {f"costs.{name}": value for name, value in sorted(found.costs.items())}
        rows.append(row)
    return rows


def sweep_csv(points: Sequence[SweepPoint]) -> str:
    """Return the rows as CSV with a header line; a column is empty where a point has no such value."""
    rows = sweep_rows(points)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_json(points: Sequence[SweepPoint]) -> str:
    """Return the rows as a JSON array, each with its `choices`."""
    rows = sweep_rows(points)
    for row, point in zip(rows, points, strict=True):
        row["choices"] = point.solution.choices if point.solution else None
    return json.dumps(rows, indent=2, allow_nan=False)
