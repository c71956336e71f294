"""From results to levels and capabilities."""

from __future__ import annotations

from anyblock.contract.capabilities import CAPABILITIES
from anyblock.errors import AnyBlockError

from anyblock_conformance.levels import FLOORS, Level
from anyblock_conformance.outcome import Outcome, Result
from anyblock_conformance.report.model import CapabilityResult, LevelResult
from anyblock_conformance.session import Session


def level_result(session: Session, level: Level) -> LevelResult:
    """Return what one level came to; its checks are run if they have not been.

    A level is passed when nothing in it failed and enough of it passed: a suite of which nearly nothing applies proves
    nothing.
    """
    results = session.results(level)
    own = [planned for planned in session.plan.values() if planned.check.level == level]
    in_scope = {planned.check.id for planned in own if session.in_scope(planned)}
    passed = sum(result.outcome.counts for result in results)
    floor = min(FLOORS[level], len(in_scope)) if results else FLOORS[level]
    if results and not in_scope:
        state = "not run"
    elif any(result.outcome.is_failure for result in results):
        state = "failed"
    else:
        state = "passed" if passed >= floor else "incomplete"
    return LevelResult(level, state, passed, floor, len(results))


def capability_results(session: Session) -> list[CapabilityResult]:
    """Return every capability of core, as declared and as seen."""
    try:
        declared = session.subject.family.capabilities()
    except AnyBlockError:
        return []
    by_name: dict[str, list[Result]] = {}
    for result in session.results():
        by_name.setdefault(result.capability or "", []).append(result)
    return [
        CapabilityResult(name, str(declared[name].support), declared[name].note, _verdict(by_name.get(name, [])))
        for name in CAPABILITIES
    ]


def _verdict(results: list[Result]) -> str:
    outcomes = {result.outcome for result in results}
    if Outcome.FALSE_CLAIM in outcomes or Outcome.FAILED in outcomes:
        return "false claim"
    if outcomes & {Outcome.XFAILED, Outcome.UNEXPECTED_PASS, Outcome.PROVISIONAL}:
        return "announced failure" if Outcome.PROVISIONAL not in outcomes else "not tested"
    if Outcome.UNCLAIMED in outcomes:
        return "works, not declared"
    return "confirmed" if Outcome.PASSED in outcomes else "not tested"
