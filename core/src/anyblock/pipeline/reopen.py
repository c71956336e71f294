"""A finished run as a search problem again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anyblock.config.budget import parse_bound
from anyblock.config.load import load_config
from anyblock.config.schema import SearchConfig
from anyblock.pipeline.run_folder import RunFolder
from anyblock.pipeline.stages.candidates import CostedCandidates, read_candidates
from anyblock.pipeline.stages.measured_costs import with_measured_costs
from anyblock.pipeline.stages.scores import read_scores, scores_belong_to
from anyblock.pipeline.stages.search import build_problem
from anyblock.search.problem import Problem


def search_settings(path: Path, overrides: Mapping[str, object]) -> SearchConfig:
    """Return the run's search settings with these keys changed."""
    given = [f"search.{key}={json.dumps(value)}" for key, value in overrides.items()]
    return load_config(path / "run.yaml", given).search


def open_search(
    path: Path, overrides: Mapping[str, object], *, needs_budget: bool = True
) -> tuple[SearchConfig, CostedCandidates, Problem]:
    """Return the run's search settings with these keys changed, its candidates, and the search problem that they make.

    Raises:
        InputError: there is no run, or its scores are not finished.
    """
    run = RunFolder.open(path)
    settings = search_settings(path, overrides)
    costed = with_measured_costs(run, read_candidates(run))
    scores = read_scores(run)
    if not scores_belong_to(run, costed):
        raise run.unfinished("the scores are those of other candidates")
    # A sweep brings its own budget; until then the problem is the teacher's, which keeps any.
    bounds = settings.bounds() if needs_budget or settings.budget else ()
    problem = build_problem(costed, scores, bounds or (parse_bound("params", "1x"),))
    return settings, costed, problem if bounds else replace(problem, budgets=())
