"""A badge in the form that shields.io's endpoint reads (https://shields.io/badges/endpoint-badge)."""

from __future__ import annotations

from typing import Any

from anyblock_conformance.report.model import Report


def badge(report: Report) -> dict[str, Any]:
    """Return the badge's JSON: how many of the checks that ran passed, and in which colour."""
    counts = report.counts
    good = counts["passed"] + counts["unclaimed"]
    levels = [level.level for level in report.levels if level.state == "passed"]
    message = f"{good} of {counts['ran']} checks, {len(levels)} of {len(report.levels)} levels"
    headers = report.scope == "headers"  # no number was computed
    whole = not headers and counts["xfailed"] + counts["provisional"] == 0
    colour = ("brightgreen" if whole else "yellowgreen") if report.passed else "red"
    return {
        "schemaVersion": 1,
        "label": f"anyblock {report.model_type}",
        "message": message + " (headers alone)" * headers,
        "color": colour,
        "isError": not report.passed,
    }
