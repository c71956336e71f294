"""`search`: other budgets from the scores of an existing run, without running a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anyblock.blocks import BlockConfig
from anyblock.config.load import load_config
from anyblock.pipeline.run_folder import RunFolder
from anyblock.pipeline.stages.candidates import read_candidates
from anyblock.pipeline.stages.latency import with_latency
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


def search_run(path: Path, budgets: Sequence[str], *, solutions: int = 1, min_distance: int = 1) -> FoundSolutions:
    """Search under `budgets` (`COST=VALUE`) with the candidates, scores and settings of the run at `path`.

    Raises:
        InputError: there is no run, or its scores are not finished.
        BudgetError: no child keeps the budgets.
    """
    run = RunFolder.open(path)
    overrides = {"budget": list(budgets), "solutions": solutions, "min_distance": min_distance}
    config = load_config(
        run.path / "run.yaml", [f"search.{key}={json.dumps(value)}" for key, value in overrides.items()]
    )
    settings = config.search
    costed = with_latency(run, read_candidates(run))
    problem = build_problem(costed, read_scores(run), settings.bounds())
    found = solve_diverse(
        problem, gap=settings.gap, count=solutions, min_distance=min_distance, time_limit=settings.time_limit
    )
    blocks = [child_blocks(costed.blocks, chosen_candidates(costed, solution)) for solution in found]
    return FoundSolutions(found, blocks, costed.blocks, sorted(budget.cost for budget in problem.budgets))
