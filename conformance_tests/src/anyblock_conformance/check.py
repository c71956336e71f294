"""Checks: plain functions with an id, a level and a documented reason."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from anyblock_conformance.levels import Level

if TYPE_CHECKING:
    from anyblock_conformance.subject import Subject

Needs = Literal["headers", "weights", "tiny"]
"""What a check reads: a checkpoint's config and headers, its weights, or the tiny model of `conformance_config` only."""
Cases = Callable[["Subject"], Sequence[str]]
CheckFunction = Callable[..., None]
_ID: Final = re.compile(r"(structure|convert|build|prune|search)\.[a-z0-9]+(-[a-z0-9]+)*")
CASE: Final = "{case}"
"""Stands for the case in the capability of a check with several cases."""


@dataclass(frozen=True)
class Check:
    """A registered check.

    Attributes:
        id: its stable name, `level.words-of-the-rule`.
        level: its level.
        function: `check_x(subject)`, or `check_x(subject, case)` for a check with cases.
        capability: the capability it tests; `{case}` stands for the case.
        depends_on: checks without which this one means nothing; it is skipped when one of them fails.
        needs: what it reads.
        cases: the cases for a subject; None for a check that runs once.
        new_in: the minor version of the suite that brought it, in which it is provisional; None for a binding check.
        summary, why, fix: from its docstring.
    """

    id: str
    level: Level
    function: CheckFunction
    capability: str | None
    depends_on: tuple[str, ...]
    needs: Needs
    cases: Cases | None
    new_in: str | None
    summary: str
    why: str
    fix: str

    def capability_for(self, case: str | None) -> str | None:
        """Return the capability that a case tests."""
        if self.capability is None or CASE not in self.capability:
            return self.capability
        return None if case is None else self.capability.replace(CASE, case)

    def run(self, subject: Subject, case: str | None) -> None:
        """Run the check.

        Raises:
            CheckFailedError: the adapter does not do what the check asks for.
            NotApplicableError: the check has no meaning for this subject.
        """
        if case is not None:
            self.function(subject, case)
        elif self.cases is None:
            self.function(subject)
        else:
            self.cases(subject)  # what gives them raises, or the case would be there


def check(
    id: str,  # noqa: A002 - it is what the report calls it
    *,
    capability: str | None = None,
    depends_on: Sequence[str] = (),
    needs: Needs = "weights",
    cases: Cases | None = None,
    new_in: str | None = None,
) -> Callable[[CheckFunction], CheckFunction]:
    """Make a function a check; its level is the first word of its id.

    The function's docstring has a summary, a paragraph that begins with `Why:` and one that begins with `How to fix:`.

    Raises:
        ValueError: the id or the docstring has not the agreed form.
    """

    if not _ID.fullmatch(id):
        raise ValueError(f"check id {id!r} is not of the form level.words-of-the-rule")

    def decorate(function: CheckFunction) -> CheckFunction:
        """Attach the check that this function is to it."""
        summary, why, fix = _documentation(id, inspect.getdoc(function) or "")
        level = Level(id.partition(".")[0])
        found = Check(id, level, function, capability, tuple(depends_on), needs, cases, new_in, summary, why, fix)
        function.check = found  # type: ignore[attr-defined]
        return function

    return decorate


def check_of(function: Any) -> Check | None:
    """Return what `check` made of a function; None for any other object."""
    found = getattr(function, "check", None)
    return found if isinstance(found, Check) else None


def _documentation(identifier: str, text: str) -> tuple[str, str, str]:
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    parts = {"Why:": "", "How to fix:": ""}
    for paragraph in paragraphs[1:]:
        for begin in parts:
            if paragraph.startswith(begin):
                parts[begin] = paragraph.removeprefix(begin).strip()
    if not paragraphs[0] or not all(parts.values()):
        raise ValueError(f"check {identifier}: the docstring needs a summary, a `Why:` and a `How to fix:` paragraph")
    return paragraphs[0], parts["Why:"], parts["How to fix:"]


def result_id(identifier: str, case: str | None) -> str:
    """Return the id of a result: the check's, with the case in brackets."""
    return identifier if case is None else f"{identifier}[{case}]"


def base_id(identifier: str) -> str:
    """Return the check's id from a result's."""
    return identifier.partition("[")[0]
