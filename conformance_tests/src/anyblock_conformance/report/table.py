"""A report on the terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from anyblock_conformance.check import base_id
from anyblock_conformance.outcome import Outcome, Result
from anyblock_conformance.report.model import Report

COLOURS = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.FALSE_CLAIM: "bold red",
    Outcome.UNEXPECTED_PASS: "bold red",
    Outcome.XFAILED: "yellow",
    Outcome.PROVISIONAL: "yellow",
    Outcome.UNCLAIMED: "cyan",
    Outcome.SKIPPED: "dim",
}
_STATES = {"passed": "green", "failed": "bold red", "incomplete": "bold red", "not run": "dim"}
_VERDICTS = {"confirmed": "green", "false claim": "bold red", "works, not declared": "cyan"}


def report_view(report: Report) -> RenderableType:
    """Return the report as a table of checks, the failures in full, the levels, the capabilities and the counts."""
    parts: list[RenderableType] = [_checks(report), *_skipped(report)]
    parts += [_failure(result) for result in report.failures]
    parts += [_levels(report), _capabilities(report), Text(count_line(report)), Text(f"reproduce: {report.command}")]
    parts.append(Text("conformance: passed" if report.passed else "conformance: not passed", _STATES[_state(report)]))
    return Group(*parts)


def count_line(report: Report) -> str:
    """Return the counts in one line; every planned check is in exactly one of them."""
    counts = report.counts
    always = ("passed", "failed", "xfailed", "skipped")
    ends = [f"{counts[str(outcome)]} {outcome}" for outcome in Outcome if counts[str(outcome)] or outcome in always]
    return f"{counts['planned']} checks planned, {counts['ran']} ran: {', '.join(ends)}; {report.seconds:.1f} s"


def _state(report: Report) -> str:
    return "passed" if report.passed else "failed"


def _checks(report: Report) -> Table:
    table = Table(title=f"{escape(report.subject)} ({escape(_adapter(report))})", title_justify="left", expand=False)
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for result in report.results:
        if result.outcome is Outcome.SKIPPED:
            continue
        lines = result.message.splitlines()
        table.add_row(
            escape(result.id), Text(str(result.outcome), COLOURS[result.outcome]), Text(lines[0] if lines else "")
        )
    return table


def _skipped(report: Report) -> list[RenderableType]:
    reasons: dict[str, list[str]] = {}
    for result in report.results:
        if result.outcome is Outcome.SKIPPED:
            reasons.setdefault(result.message, []).append(result.id)
    if not reasons:
        return []
    table = Table(title="skipped", title_justify="left", show_lines=True)
    table.add_column("why", overflow="fold")
    table.add_column("checks", overflow="fold")
    for reason, ids in reasons.items():
        table.add_row(Text(reason), Text(f"{len(ids)}: {', '.join(_folded(ids, report))}"))
    return [table]


def _folded(ids: list[str], report: Report) -> list[str]:
    """Return ids in which all cases of a check, if all of them are there, are one entry."""
    found: dict[str, list[str]] = {}
    for name in ids:
        found.setdefault(base_id(name), []).append(name)
    planned = Counter(base_id(result.id) for result in report.results)
    return [
        part
        for base, names in found.items()
        for part in ([f"{base} (all {len(names)} cases)"] if len(names) == planned[base] > 1 else names)
    ]


def _adapter(report: Report) -> str:
    named = [f"{name} {version}" for name, version in report.versions.items()]
    return ", ".join(named)


def _failure(result: Result) -> Panel:
    body = Text(f"{result.summary}\n\n{result.message}\n\n")
    body.append("Why: ", "bold").append(f"{result.why}\n")
    body.append("How to fix: ", "bold").append(result.fix)
    return Panel(body, title=Text(f"{result.id}: {result.outcome}"), title_align="left", border_style="red")


def _levels(report: Report) -> Table:
    table = Table(title="levels", title_justify="left")
    for name in ("level", "state", "why"):
        table.add_column(name)
    for level in report.levels:
        table.add_row(str(level.level), Text(level.state, _STATES[level.state]), level.reason)
    return table


def _capabilities(report: Report) -> Table:
    table = Table(title="capabilities", title_justify="left")
    for name in ("capability", "declared", "seen"):
        table.add_column(name)
    for capability in report.capabilities:
        declared = f"{capability.declared} ({capability.note})" if capability.note else capability.declared
        table.add_row(capability.name, Text(declared), Text(capability.verdict, _VERDICTS.get(capability.verdict, "")))
    return table
