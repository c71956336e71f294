"""Running checks on a subject: each at most once, after those that it depends on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from anyblock.contract.capabilities import CAPABILITIES, Capability
from anyblock.errors import AnyBlockError

from anyblock_conformance import __version__
from anyblock_conformance.check import Check, base_id, result_id
from anyblock_conformance.expect import CheckFailedError, NotApplicableError
from anyblock_conformance.expected import check_expected_failures
from anyblock_conformance.faults import advice_on, fault_of, message_of
from anyblock_conformance.levels import Level
from anyblock_conformance.outcome import Outcome, Result
from anyblock_conformance.registry import all_checks
from anyblock_conformance.state import preserved
from anyblock_conformance.subject import Subject

_SCOPES: Final = {"tiny": {"headers", "weights", "tiny"}, "weights": {"headers", "weights"}, "headers": {"headers"}}
_BECAUSE: Final = "not run because of "
_OUT_OF_SCOPE: Final = {
    "weights": "it reads weights; --full runs it",
    "tiny": "it is about the adapter's own tiny model; run the suite on the family",
}


@dataclass(frozen=True)
class Planned:
    """A check, or one case of a check, that is to be run."""

    check: Check
    case: str | None

    @property
    def id(self) -> str:
        """The id of its result."""
        return result_id(self.check.id, self.case)


class Session:
    """Checks on one subject.

    Args:
        subject: what is checked.
        expected_failures: `{result id: reason}`.
        levels: the levels to run; all when not given.
        checks: the checks; all of the suite when not given.
        blocking: skip checks whose dependencies failed, or that meet a fault which is reported already. The kill matrix
            runs them all the same.

    Raises:
        UsageError: an expected failure with an unknown id or without a reason.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        expected_failures: Mapping[str, str] | None = None,
        levels: Iterable[Level] | None = None,
        checks: Sequence[Check] | None = None,
        blocking: bool = True,
    ) -> None:
        self.subject = subject
        self.levels = [level for level in Level if levels is None or level in set(levels)]
        plan = [
            Planned(check, case)
            for check in (all_checks() if checks is None else checks)
            for case in _cases(check, subject)
        ]
        self.expected = check_expected_failures(expected_failures or {}, [planned.id for planned in plan])
        self.plan = {planned.id: planned for planned in plan if planned.check.level in self.levels}
        self._blocking = blocking
        self._capabilities: dict[str, Capability] | AnyBlockError | None = None
        self._results: dict[str, Result] = {}
        self._faults: dict[str, str] = {}

    def result(self, identifier: str) -> Result:
        """Return the result of a planned check, running it and what it depends on first if that has not been done.

        Raises:
            KeyError: it is not planned.
        """
        if identifier not in self._results:
            planned = self.plan[identifier]
            begin = time.perf_counter()
            outcome, message, raised = self._outcome(planned)
            seconds = time.perf_counter() - begin
            check, fix = planned.check, planned.check.fix
            if outcome.is_failure:
                self._faults = {fault_of(error): identifier for error in raised} | self._faults
                fix = self._to_whom(planned, advice_on(raised) or fix)
            self._results[identifier] = Result(
                id=identifier,
                level=check.level,
                outcome=outcome,
                message=message,
                summary=check.summary,
                why=check.why,
                fix=fix,
                capability=check.capability_for(planned.case),
                seconds=seconds,
            )
        return self._results[identifier]

    def results(self, level: Level | None = None) -> list[Result]:
        """Return the results of all planned checks, or of those of one level."""
        return [self.result(name) for name, planned in self.plan.items() if level in (None, planned.check.level)]

    def in_scope(self, planned: Planned) -> bool:
        """Return whether the subject has what the check reads."""
        return planned.check.needs in _SCOPES[self.subject.scope]

    # -- one check --------------------------------------------------------------------------------------------------

    def _outcome(self, planned: Planned) -> tuple[Outcome, str, Sequence[BaseException]]:
        """Return how a check ended, the message, and what was raised if that is all that it found."""
        if not self.in_scope(planned):
            return Outcome.SKIPPED, _OUT_OF_SCOPE[planned.check.needs], ()
        if blocked := self._blocked_by(planned):
            return Outcome.SKIPPED, blocked, ()
        passed, message, raised = self._run(planned)
        known = [self._faults.get(fault_of(error)) for error in raised]
        if self._blocking and known and all(known):
            return Outcome.SKIPPED, f"{_BECAUSE}{known[0]}, which failed of the same fault", ()
        return *self._judged(planned, passed, message), raised

    def _judged(self, planned: Planned, passed: bool | None, message: str) -> tuple[Outcome, str]:
        check = planned.check
        reason = self.expected.get(planned.id)
        declared = self._declared(check.capability_for(planned.case))
        if declared is not None and not declared and reason is None:
            state = f"the capability {check.capability_for(planned.case)} is declared as {declared.support}"
            return (Outcome.UNCLAIMED, f"it works, and {state}") if passed else (Outcome.SKIPPED, state)
        if passed is None:
            return Outcome.SKIPPED, message
        if passed:
            return (Outcome.PASSED, "") if reason is None else (Outcome.UNEXPECTED_PASS, _stale(reason))
        if reason is not None:
            return Outcome.XFAILED, f"{reason} ({message})"
        if is_provisional(check):
            return (
                Outcome.PROVISIONAL,
                f"{message}\n(new in {check.new_in}; it fails adapters from the next minor version on)",
            )
        if declared:
            note = f" ({declared.note})" if declared.note else ""
            claim = f"the capability {check.capability_for(planned.case)} is declared as {declared.support}{note}"
            return Outcome.FALSE_CLAIM, f"{message}\n{claim}"
        return Outcome.FAILED, message

    def _run(self, planned: Planned) -> tuple[bool | None, str, Sequence[BaseException]]:
        """Return whether the check passed, None when it does not apply, the message, and what was raised; see `_outcome`."""
        try:
            with preserved():
                planned.check.run(self.subject, planned.case)
        except NotApplicableError as error:
            return None, str(error), ()
        except CheckFailedError as error:
            return False, str(error), error.raised
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an adapter raises is its result
            return False, message_of(error, self.subject.family.descriptor), (error,)
        return True, "", ()

    def _blocked_by(self, planned: Planned) -> str:
        if not self._blocking:
            return ""
        for name in planned.check.depends_on:
            for identifier, other in self.plan.items():
                if other.check.id != name or (None not in (other.case, planned.case) and other.case != planned.case):
                    continue
                outcome = self.result(identifier).outcome
                if outcome.is_failure or outcome in (Outcome.XFAILED, Outcome.PROVISIONAL):
                    return f"{_BECAUSE}{identifier}: {outcome}"
                if outcome is Outcome.SKIPPED and (message := self.result(identifier).message).startswith(_BECAUSE):
                    return message
        return ""

    # -- advice -----------------------------------------------------------------------------------------------------

    @cached_property
    def _alone(self) -> Session | None:
        """The same checks on the adapter's own tiny model, where this session is about a checkpoint."""
        return None if self.subject.scope == "tiny" else Session(self.subject.alone)

    def _to_whom(self, planned: Planned, advice: str) -> str:
        """Return advice on a failed check; of a checkpoint it says which is likelier wrong, that or the adapter."""
        if self._alone is None:
            return advice
        family = self.subject.family
        author = f"the author of {family.distribution} {family.version}"
        own = self._alone.result(planned.id) if planned.id in self._alone.plan else None
        if own is not None and own.outcome.is_failure:
            return (
                f"The adapter fails this check on its own tiny model, too: it is likelier wrong. For {author}: {advice}"
            )
        if own is not None and own.outcome.counts:
            return (
                "The adapter passes this check on its own tiny model, so the checkpoint is likelier wrong: damaged, incomplete, "
                "edited, or of a variant that the adapter does not serve. For its owner: download or convert it again. "
                f"If it is sound, for {author}: {advice}"
            )
        return f"Nothing says which is likelier wrong, the checkpoint or the adapter. For {author}: {advice}"

    def _declared(self, name: str | None) -> Capability | None:
        """Return the declared state of a capability; None for what every adapter has to do."""
        if name not in CAPABILITIES:
            return None
        if self._capabilities is None:
            try:
                self._capabilities = self.subject.family.capabilities()
            except AnyBlockError as error:
                self._capabilities = error
        return None if isinstance(self._capabilities, AnyBlockError) else self._capabilities[name]


def is_provisional(check: Check, version: str = __version__) -> bool:
    """Return whether a check is so new that it does not fail a report: in the minor version that brought it."""
    return check.new_in is not None and version.split(".")[:2] == check.new_in.split(".")[:2]


def _cases(check: Check, subject: Subject) -> Sequence[str | None]:
    """Return a check's cases; None alone where it has none, or where what gives them raises, which running it then shows."""
    try:
        return [None] if check.cases is None else list(check.cases(subject))
    except Exception:  # noqa: BLE001 - see above
        return [None]


def _stale(reason: str) -> str:
    return f"it passes, although it was announced to fail: {reason}\nremove it from the expected failures"


def level_of(identifier: str) -> Level:
    """Return the level of a result's id."""
    return Level(base_id(identifier).partition(".")[0])
