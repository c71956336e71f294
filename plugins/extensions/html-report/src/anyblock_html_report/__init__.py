"""Runs of AnyBlock as one HTML page that needs nothing but a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.report_section import ReportSection

__all__ = ["HtmlReportExtension"]


class HtmlReportExtension:
    """Adds the section `html`, with which a run makes its page itself."""

    @hookimpl
    def report_sections(self) -> dict[str, type[ReportSection]]:
        """See `FamilySpec.report_sections`."""
        from anyblock_html_report.section import HtmlSection

        return {"html": HtmlSection}
