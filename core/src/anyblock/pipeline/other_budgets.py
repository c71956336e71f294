"""`search`: other budgets from the scores of an existing run, without running a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from anyblock.candidates.candidate import child_blocks
from anyblock.contract.blocks import BlockConfig
from anyblock.errors import UsageError
from anyblock.pipeline.reopen import open_search
from anyblock.pipeline.stages.search import chosen_candidates
from anyblock.search.homogeneous import homogeneous
from anyblock.search.restrict import restrict
from anyblock.search.solution import Solution
from anyblock.search.solve import solve_diverse


@dataclass(frozen=True)
class FoundSolutions:
    """Solutions for other budgets.

    Attributes:
        solutions: best first.
        blocks: the child's block configs of each solution.
        teacher_blocks: the teacher's.
        budgeted: the costs that the budgets bound.
    """

    solutions: list[Solution]
    blocks: list[list[BlockConfig]]
    teacher_blocks: list[BlockConfig]
    budgeted: list[str]


@dataclass(frozen=True)
class Restrictions:
    """What else is asked of a solution.

    Attributes:
        fixed: `{subblock: candidate}` that it has, for instance `{"block_3_ffn": "no_op"}`.
        forbidden: `{subblock: candidates}` that it has not.
        homogeneous: whether all layers get the same candidate, as a baseline.
    """

    fixed: Mapping[str, str] = field(default_factory=dict)
    forbidden: Mapping[str, Set[str]] = field(default_factory=dict)
    homogeneous: bool = False


def search_run(
    path: Path,
    budgets: Sequence[str],
    *,
    solutions: int = 1,
    min_distance: int = 1,
    restrictions: Restrictions | None = None,
) -> FoundSolutions:
    """Search under `budgets` (`COST=VALUE`; none: the run's own) with the candidates, scores and settings of the run at `path`.

    Raises:
        InputError: there is no run, or its scores are not finished.
        UsageError: an unknown subblock or candidate, or several homogeneous solutions.
        BudgetError: no child keeps the budgets.
    """
    wanted = restrictions or Restrictions()
    if wanted.homogeneous and solutions > 1:
        raise UsageError(f"{solutions} homogeneous solutions", expected="one: it is a baseline")
    overrides = {"solutions": solutions, "min_distance": min_distance} | ({"budget": list(budgets)} if budgets else {})
    settings, costed, problem = open_search(path, overrides)
    problem = restrict(problem, fixed=wanted.fixed, forbidden=wanted.forbidden)
    if wanted.homogeneous:
        found = [homogeneous(problem, gap=settings.gap, time_limit=settings.time_limit)]
    else:
        found = solve_diverse(
            problem, gap=settings.gap, count=solutions, min_distance=min_distance, time_limit=settings.time_limit
        )
    blocks = [child_blocks(costed.blocks, chosen_candidates(costed, solution)) for solution in found]
    return FoundSolutions(found, blocks, costed.blocks, sorted({budget.cost for budget in problem.budgets}))
