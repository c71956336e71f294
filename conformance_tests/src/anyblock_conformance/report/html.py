"""A report as one page that needs nothing else."""

from __future__ import annotations

from anyblock_conformance.report.model import Report
from anyblock_conformance.report.table import count_line


def html_report(report: Report) -> str:
    """Return the report as HTML; everything that comes from an adapter is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("anyblock_conformance.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=report, counts=count_line(report))
