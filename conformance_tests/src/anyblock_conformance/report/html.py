"""A report as one page that needs nothing else."""

from __future__ import annotations

import re
from typing import Any

from anyblock_conformance.report.model import Report
from anyblock_conformance.report.table import count_line


def html_report(report: Report) -> str:
    """Return the report as HTML, failures first; everything that comes from an adapter is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("anyblock_conformance.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    results = sorted(report.results, key=lambda result: not result.outcome.is_failure)
    return environment.get_template("report.html.j2").render(report=report, results=results, counts=count_line(report))


def _code(escaped: Any) -> Any:
    """Return escaped text, as the filter `e` gives it, in which `backticks` mark code."""
    plain = str(escaped)  # escaped text would escape the marks that are put into it
    return type(escaped)(re.sub(r"`([^`]+)`", r"<code>\1</code>", plain))
