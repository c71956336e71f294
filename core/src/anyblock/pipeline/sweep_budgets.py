"""`search --sweep`: several values of one budget from the scores of an existing run, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anyblock.checkpoint.atomic import atomic_directory
from anyblock.errors import UsageError
from anyblock.pipeline.reopen import open_search, search_settings
from anyblock.pipeline.stages.search import resolve_budgets
from anyblock.search.sweep import SweepPoint, sweep, sweep_csv, sweep_json


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
    settings, costed, problem = open_search(path, {"budget": list(budgets)}, needs_budget=False)
    swept = [
        resolve_budgets(search_settings(path, {"budget": [f"{cost}={value}"]}).bounds(), costed.reference)[0]
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
