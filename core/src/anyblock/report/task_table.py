"""Scores of tasks, models beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from anyblock.errors import UsageError
from anyblock.report import format as fmt

if TYPE_CHECKING:
    from anyblock.evaluation.harness.tasks import TaskScore


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
            fmt.number(value) + (f" ± {fmt.number(score.errors[name], 2)}" if name in score.errors else "")
            for name, value in score.values.items()
        ]
        table.add_row(
            score.task, score.metric, "higher" if score.higher_is_better else "lower", str(score.samples), *shown
        )
    return table
