"""The section `html` of a run's report: the page next to `report.md`, made by the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from anyblock.contract.report_section import ReportSection

from anyblock_html_report.page import check_target, render, write_page
from anyblock_html_report.run import read_run


class HtmlSection(ReportSection):
    """Writes `report.html` into the run folder and links to it; every run does, unless `report.sections` leaves it out."""

    by_default: ClassVar[bool] = True
    summary: ClassVar[str] = "the run as one HTML page, report.html"
    title: ClassVar[str] = "Pictures"

    def markdown(self, summary: Mapping[str, Any], run: Path) -> str:
        """See `ReportSection.markdown`."""
        page = run / "report.html"
        check_target(page, overwrite=False)
        page.unlink(missing_ok=True)  # an earlier process's page must not pass for this one's if anything fails
        found = read_run(run)
        found.busy = False  # by nothing but this
        write_page(render([found]), page)
        return "[report.html](report.html) shows this run as one page, for a browser."
