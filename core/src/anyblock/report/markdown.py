"""A run's report as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.evaluation.result import EvaluationResult
from anyblock.plugins.blame import blaming, check_result
from anyblock.report import format as fmt
from anyblock.report.rows import budget_row, cost_rows, evaluation_rows, layer_rows, quality_rows, search_rows
from anyblock.report.summary import RunSummary

if TYPE_CHECKING:
    from anyblock.contract.report_section import ReportSection
    from anyblock.plugins.status import Origin


def markdown_report(summary: RunSummary | Mapping[str, Any]) -> str:
    """Return the Markdown report of a run: command, teacher, budgets, quality, costs, layers, search and stage times.

    Args:
        summary: a `RunSummary`, or the data that `RunSummary.to_dict` gave.

    Raises:
        ConfigError: the data is not that of a run summary, or its block configs or quality are malformed.
        UsageError: the child and the teacher do not have the same number of layers.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    run = summary if isinstance(summary, RunSummary) else RunSummary.from_dict(summary)
    environment = Environment(
        loader=PackageLoader("anyblock.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = escape_cell
    environment.filters["duration"] = fmt.duration
    environment.filters["memory"] = lambda value: "" if value is None else fmt.size(value)
    return environment.get_template("report.md.j2").render(
        run=run,
        windows=EvaluationResult.from_dict(run.quality).windows if run.quality else "",
        layers=list(layer_rows(run)),
        quality=list(quality_rows(run)),
        evaluations=list(evaluation_rows(run)),
        costs=list(cost_rows(run)),
        budgets=[budget_row(line) for line in run.budgets],
        search=search_rows(run),
        total_seconds=sum(stage.seconds for stage in run.stages),
    )


def report_sections(summary: RunSummary) -> dict[str, str]:
    """Return the sections of the Markdown report by their headings, without what stands before the first."""
    parts = markdown_report(summary).split("\n## ")[1:]
    return {title: text.strip() for title, _, text in (part.partition("\n") for part in parts)}


def escape_cell(text: object) -> str:
    """Return text that can stand in a cell of a Markdown table."""
    return " ".join(str(text).splitlines()).replace("\\", "\\\\").replace("|", "\\|")


def added_section(section: ReportSection, origin: Origin, name: str, summary: Mapping[str, Any], run: Path) -> str:
    """Return the Markdown that an extension's section adds to the report, with its heading; "" when it adds nothing.

    Raises:
        PluginError: the section raised, or returned something else than text; the message names its distribution.
    """
    what = f"the report section {name!r}"
    with blaming(origin, what, section):
        text = section.markdown(summary, run)
    check_result(origin, what, text, str, "text")
    return f"\n## {section.title}\n\n{text.strip()}\n" if text.strip() else ""
