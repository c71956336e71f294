"""What has changed from one report to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from anyblock_conformance.outcome import Outcome
from anyblock_conformance.report.model import Report

_ABSENT = "absent"


@dataclass(frozen=True)
class Change:
    """One difference: of a check's outcome, a level's state, a capability, or a version."""

    what: str
    name: str
    before: str
    after: str
    worse: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return dict(vars(self))


def differences(before: Report, after: Report) -> list[Change]:
    """Return every difference between two reports: checks, levels, capabilities, versions.

    It is worse when a check fails that did not, when one that passed does not run any more, when a level that was
    passed is not, or when a capability is declared as less.
    """
    found = []
    outcomes = [{result.id: str(result.outcome) for result in report.results} for report in (before, after)]
    for name, old, new in _unequal(*outcomes):
        found.append(Change("check", name, old, new, worse=(_fails(new) and not _fails(old)) or _lost(old, new)))
    states = [{str(level.level): level.state for level in report.levels} for report in (before, after)]
    for name, old, new in _unequal(*states):
        found.append(Change("level", name, old, new, worse=old == "passed"))
    declared = [{entry.name: entry.declared for entry in report.capabilities} for report in (before, after)]
    for name, old, new in _unequal(*declared):
        found.append(Change("capability", name, old, new, worse=_rank(new) < _rank(old)))
    for name, old, new in _unequal(before.versions, after.versions):
        found.append(Change("version", name, old, new, worse=False))
    return found


def diff_view(before: Report, after: Report, changes: list[Change]) -> RenderableType:
    """Return the differences as a table."""
    if not changes:
        return Text(f"no difference between {len(before.results)} and {len(after.results)} results")
    table = Table(title=f"{before.subject} → {after.subject}", title_justify="left")
    for name in ("what", "name", "before", "after"):
        table.add_column(name, overflow="fold")
    for change in changes:
        table.add_row(
            change.what, Text(change.name), change.before, Text(change.after, "bold red" if change.worse else "green")
        )
    worse = sum(change.worse for change in changes)
    return Group(table, Text(f"{len(changes)} differences, {worse} for the worse"))


def _unequal(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str]]:
    pairs = [(name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in dict.fromkeys((*before, *after))]
    return [(name, old, new) for name, old, new in pairs if old != new]


def _fails(outcome: str) -> bool:
    return outcome != _ABSENT and Outcome(outcome).is_failure


def _lost(old: str, new: str) -> bool:
    return old == Outcome.PASSED and new in (_ABSENT, Outcome.SKIPPED, Outcome.XFAILED, Outcome.PROVISIONAL)


def _rank(support: str) -> int:
    order = ["unsupported", "not implemented", "unknown", _ABSENT, "partial", "full"]
    return order.index(support)
