"""Scores of tasks, one column per model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anyblock.errors import UsageError
from rich.table import Table

if TYPE_CHECKING:
    from anyblock_lm_eval.tasks import TaskScore


def task_table(scores: Sequence[TaskScore]) -> Table:
    """Return a table with a row for each metric of each task and a column for each model.

    Raises:
        UsageError: there is nothing to show.
    """
    if not scores:
        raise UsageError("no scores", expected="at least one metric of one task")
    table = Table(title="lm-evaluation-harness", title_justify="left", header_style="bold")
    for heading in ("task", "metric", "better"):
        table.add_column(heading)
    for heading in ("documents", *scores[0].values):
        table.add_column(heading, justify="right")
    for score in scores:
        shown = [
            f"{value:.4g}" + (f" ± {score.errors[name]:.2g}" if name in score.errors else "")
            for name, value in score.values.items()
        ]
        table.add_row(
            score.task, score.metric, "higher" if score.higher_is_better else "lower", str(score.samples), *shown
        )
    return table
