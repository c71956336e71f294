"""What became of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from anyblock_conformance.levels import Level


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    """The adapter does what the check asks for."""
    FAILED = "failed"
    """It does not."""
    FALSE_CLAIM = "false claim"
    """It does not, although it declares the capability that the check is about."""
    UNEXPECTED_PASS = "unexpected pass"
    """It does, although the failure was announced: the announcement is out of date. Counts as a failure."""
    XFAILED = "xfailed"
    """It does not, as was announced with a reason."""
    PROVISIONAL = "provisional"
    """It does not, and the check is too new to fail anybody: it is reported for one minor version."""
    UNCLAIMED = "unclaimed"
    """It does, although it does not declare the capability; declare it."""
    SKIPPED = "skipped"
    """The check did not run; the reason says why."""

    @property
    def is_failure(self) -> bool:
        """Whether the report as a whole fails because of it."""
        return self in (Outcome.FAILED, Outcome.FALSE_CLAIM, Outcome.UNEXPECTED_PASS)

    @property
    def counts(self) -> bool:
        """Whether it counts towards a level's floor."""
        return self in (Outcome.PASSED, Outcome.UNCLAIMED)


@dataclass(frozen=True)
class Result:
    """One check's result.

    Attributes:
        id: the check's id, with the case in brackets if it has several: `prune.masked-teacher[kv_heads]`.
        level: the check's level.
        outcome: how it ended.
        message: what was found and what was expected; the reason of a skip or of an announced failure.
        summary, why, fix: the check's own documentation.
        capability: the declared capability that it tests; None for what every adapter has to do.
        seconds: how long it took.
    """

    id: str
    level: Level
    outcome: Outcome
    message: str
    summary: str
    why: str
    fix: str
    capability: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "id": self.id,
            "level": str(self.level),
            "outcome": str(self.outcome),
            "message": self.message,
            "summary": self.summary,
            "why": self.why,
            "fix": self.fix,
            "capability": self.capability,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the JSON form."""
        return cls(**{**data, "level": Level(data["level"]), "outcome": Outcome(data["outcome"])})
