"""Stage `search`: the best choice of candidates within the budgets."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from anyblock.candidates.candidate import Candidate
from anyblock.candidates.storage import BYTES
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.config.budget import Bound
from anyblock.config.schema import SearchConfig
from anyblock.costs.registry import CandidateCosts
from anyblock.errors import UsageError, nearest
from anyblock.run.run_folder import RunFolder, read_json
from anyblock.search.budgets import Budget
from anyblock.search.problem import Group, Option, Problem
from anyblock.search.solution import Solution
from anyblock.search.solve import solve_diverse
from anyblock.stages.candidates import CostedCandidates

STAGE: Final = "search"


def run_search(
    run: RunFolder, settings: SearchConfig, costed: CostedCandidates, scores: dict[str, float]
) -> list[Solution]:
    """Search under the settings' budgets and keep the solutions, best first.

    Raises:
        UsageError: no budget, or one on an unknown cost.
        BudgetError: no child keeps the budgets.
    """
    problem = build_problem(costed, scores, settings.bounds())
    stage = run.stage(
        STAGE,
        {
            "budgets": [str(budget) for budget in problem.budgets],
            "settings": settings.model_dump(mode="json", exclude={"time_limit"}),
            "options": [
                [group.key, option.key, option.score, dict(option.costs)]
                for group in problem.groups
                for option in group.options
            ],
        },
    )
    if not stage.skipped:
        found = solve_diverse(
            problem,
            gap=settings.gap,
            time_limit=settings.time_limit,
            count=settings.solutions,
            min_distance=settings.min_distance,
        )
        with stage.run() as folder:
            write_json_atomic(folder / "solutions.json", [solution.to_dict() for solution in found])
    return read_solutions(run)


def read_solutions(run: RunFolder) -> list[Solution]:
    """Read the finished stage."""
    return [Solution(**row) for row in read_json(run.result(STAGE, "solutions.json"))]


def build_problem(
    costed: CostedCandidates, scores: Mapping[str, float], bounds: Sequence[Bound], *, own_scores: bool = False
) -> Problem:
    """Return the search problem: a group for each subblock, and for embeddings and head where their types are searched.

    Args:
        costed: the candidates.
        scores: by the keys of `costed.scored`; a candidate whose score is infinite cannot be chosen.
        bounds: the budgets.
        own_scores: the teacher's own subblocks have scores too; otherwise they score 0.
    """
    groups: dict[str, list[Option]] = {}
    kinds: dict[str, str] = {}
    for candidate in costed.candidates:
        score = 0.0 if candidate.unchanged and not own_scores else scores[candidate.key]
        if score == math.inf:
            continue
        option = Option(candidate.label, score, costed.costs[candidate.key], candidate.label)
        groups.setdefault(candidate.group, []).append(option)
        kinds[candidate.group] = candidate.half
    for group, types in costed.outside.items():
        for name, size in types.items():
            score = scores[f"{group}@{name}"] if len(types) > 1 else 0.0
            option = Option(name, score, dict.fromkeys(costed.fixed, 0.0) | {BYTES: size}, name)
            groups.setdefault(group, []).append(option)
            kinds[group] = group
    return Problem(
        tuple(Group(key, tuple(options), kinds[key]) for key, options in groups.items()),
        resolve_budgets(bounds, costed.reference),
        costed.fixed,
    )


def check_reachable(costed: CostedCandidates, bounds: Sequence[Bound], *, later: Collection[str] = ()) -> None:
    """Refuse budgets that no choice of candidates keeps, whatever the scores.

    Args:
        costed: the candidates.
        bounds: the budgets.
        later: costs that are not known yet; budgets on them are left out.

    Raises:
        BudgetError: names each budget's smallest reachable value.
        UsageError: no budget, or one on an unknown cost.
    """
    known = [bound for bound in bounds if bound.cost not in later]
    if bounds and not known:
        return
    bounds = known
    solve_diverse(build_problem(costed, dict.fromkeys(costed.scored, 0.0), bounds), gap=1.0)


def resolve_budget(bound: Bound, teacher: CandidateCosts) -> Budget:
    """Return one budget in absolute numbers.

    Raises:
        UsageError: it is on a cost that is not known or was not measured, or its lower bound is above its upper one.
    """
    if bound.cost not in teacher:
        raise UsageError(
            f"the teacher's {bound.cost!r} is not known, so it cannot be budgeted",
            expected=f"one of {', '.join(sorted(teacher))}",
            hint=nearest(bound.cost, teacher),
        )
    own = teacher[bound.cost]
    upper, lower = (None if side is None else side.resolve(own) for side in (bound.upper, bound.lower))
    return Budget(bound.cost, upper=upper, lower=lower)


def resolve_budgets(bounds: Sequence[Bound], teacher: CandidateCosts) -> tuple[Budget, ...]:
    """Return budgets in absolute numbers.

    Raises:
        UsageError: there is none, or see `resolve_budget`.
    """
    if not bounds:
        raise UsageError("no budget", expected="for instance --budget params=0.8x or --budget memory=2.5GiB")
    return tuple(resolve_budget(bound, teacher) for bound in bounds)


def chosen_candidates(costed: CostedCandidates, solution: Solution) -> list[Candidate]:
    """Return the candidates that a solution chose, in the order of the layers."""
    return [c for c in costed.candidates if solution.choices[c.group] == c.label]
