"""`search`: other budgets, and many of them, from the scores of a finished run, without running a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from anyblock.candidates.candidate import child_blocks
from anyblock.checkpoint.atomic import atomic_directory
from anyblock.config.budget import parse_bound
from anyblock.config.load import load_config
from anyblock.config.schema import SearchConfig
from anyblock.contract.blocks import BlockConfig
from anyblock.errors import UsageError
from anyblock.run.run_folder import RunFolder
from anyblock.search.homogeneous import homogeneous
from anyblock.search.problem import Problem, restrict
from anyblock.search.solution import Solution
from anyblock.search.solve import solve_diverse
from anyblock.search.sweep import SweepPoint, sweep, sweep_csv, sweep_json
from anyblock.stages.candidates import CostedCandidates, read_candidates
from anyblock.stages.measured_costs import with_measured_costs
from anyblock.stages.scores import read_scores, scores_belong_to
from anyblock.stages.search import build_problem, chosen_candidates, resolve_budgets


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
    settings, costed, problem = _opened(path, overrides)
    problem = restrict(problem, fixed=wanted.fixed, forbidden=wanted.forbidden)
    if wanted.homogeneous:
        found = [homogeneous(problem, gap=settings.gap, time_limit=settings.time_limit)]
    else:
        found = solve_diverse(
            problem, gap=settings.gap, count=solutions, min_distance=min_distance, time_limit=settings.time_limit
        )
    blocks = [child_blocks(costed.blocks, chosen_candidates(costed, solution)) for solution in found]
    return FoundSolutions(found, blocks, costed.blocks, sorted({budget.cost for budget in problem.budgets}))


def sweep_run(
    path: Path, text: str, budgets: Sequence[str], output: Path, *, overwrite: bool = False
) -> list[SweepPoint]:
    """Search for several values of one budget and write `sweep.csv` and `sweep.json`, which `anyblock report` plots.

    Args:
        path: the run.
        text: `COST=VALUE,VALUE,...`, each an upper bound (a lower one of a rate).
        budgets: further ones, kept at every value.
        output: a folder for the files, which appears when all of them are there.
        overwrite: replace what is at `output`.

    Raises:
        InputError: there is no run, or its scores are not finished.
        UsageError: the text is not a sweep.
        OutputExistsError: something is at `output` and is not to be replaced.
    """
    cost, _, listed = text.partition("=")
    values = [value.strip() for value in listed.split(",") if value.strip()]
    if not values:
        raise UsageError(
            f"{text!r} is not a sweep", expected="COST=VALUE,VALUE,..., for instance params=0.9x,0.8x,0.7x"
        )
    settings, costed, problem = _opened(path, {"budget": list(budgets)}, needs_budget=False)
    swept = [
        resolve_budgets(_settings(path, {"budget": [f"{cost}={value}"]}).bounds(), costed.reference)[0]
        for value in values
    ]
    if any(budget.upper is None or budget.lower is not None for budget in swept):
        raise UsageError(f"{text!r} sweeps over a range or a lower bound", expected="upper bounds alone")
    with atomic_directory(output, overwrite=overwrite) as work:
        points = sweep(
            problem,
            swept[0].cost,
            [budget.upper for budget in swept if budget.upper is not None],
            gap=settings.gap,
            time_limit=settings.time_limit,
        )
        (work / "sweep.csv").write_text(sweep_csv(points), encoding="utf-8")
        (work / "sweep.json").write_text(sweep_json(points) + "\n", encoding="utf-8")
    return points


def _settings(path: Path, overrides: Mapping[str, object]) -> SearchConfig:
    """Return the run's search settings with these keys changed."""
    given = [f"search.{key}={json.dumps(value)}" for key, value in overrides.items()]
    return load_config(path / "run.yaml", given).search


def _opened(
    path: Path, overrides: Mapping[str, object], *, needs_budget: bool = True
) -> tuple[SearchConfig, CostedCandidates, Problem]:
    """Return the run's search settings with these keys changed, its candidates, and the search problem that they make.

    Raises:
        InputError: there is no run, or its scores are not finished.
    """
    run = RunFolder.open(path)
    settings = _settings(path, overrides)
    costed = with_measured_costs(run, read_candidates(run))
    scores = read_scores(run)
    if not scores_belong_to(run, costed):
        raise run.unfinished("the scores are those of other candidates")
    # A sweep brings its own budget; until then the problem is the teacher's, which keeps any.
    bounds = settings.bounds() if needs_budget or settings.budget else ()
    problem = build_problem(costed, scores, bounds or (parse_bound("params", "1x"),))
    return settings, costed, problem if bounds else replace(problem, budgets=())
