"""`search`: other budgets from the scores of an existing run, without running a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anyblock.blocks import BlockConfig
from anyblock.config.budget import combine, parse_bound, split_entry
from anyblock.pipeline.run_folder import RunFolder
from anyblock.pipeline.stages.candidates import read_candidates
from anyblock.pipeline.stages.scores import read_scores
from anyblock.pipeline.stages.solution import build_problem, chosen_candidates
from anyblock.realize.realize import child_blocks
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


def search_run(
    path: Path, budgets: Sequence[str], *, solutions: int = 1, min_distance: int = 1, time_limit: float = 60.0
) -> FoundSolutions:
    """Search under `budgets` (`COST=VALUE`) with the candidates and scores of the run at `path`.

    Raises:
        InputError: there is no run, or its scores are not finished.
        BudgetError: no child keeps the budgets.
    """
    run = RunFolder.open(path)
    costed = read_candidates(run)
    scores = read_scores(run)
    texts: dict[str, list[str]] = {}
    for entry in budgets:
        cost, value = split_entry(entry)
        texts.setdefault(cost, []).append(value)
    bounds = [parse_bound(cost, combine(cost, values)) for cost, values in texts.items()]
    problem = build_problem(costed, scores, bounds)
    found = solve_diverse(problem, count=solutions, min_distance=min_distance, time_limit=time_limit)
    blocks = [child_blocks(costed.blocks, chosen_candidates(costed, solution)) for solution in found]
    return FoundSolutions(found, blocks, costed.blocks, sorted(texts))
