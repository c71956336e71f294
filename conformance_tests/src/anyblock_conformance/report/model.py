"""What a run found, and what that means for every level and capability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from anyblock_conformance.levels import Level
from anyblock_conformance.outcome import Outcome, Result


@dataclass(frozen=True)
class LevelResult:
    """What one level came to.

    Attributes:
        level: the level.
        state: `passed`, `failed`, `incomplete` (too few checks apply) or `not run`.
        passed: how many of its checks passed.
        floor: how many have to.
        planned: how many checks there are.
    """

    level: Level
    state: str
    passed: int
    floor: int
    planned: int

    @property
    def reason(self) -> str:
        """The state in words."""
        if self.state == "not run":
            return f"none of its {self.planned} checks is about config and headers, or about a single checkpoint"
        if self.state == "incomplete":
            return f"only {self.passed} of {self.planned} checks passed or applied, at least {self.floor} have to"
        return f"{self.passed} of {self.planned} checks passed"


@dataclass(frozen=True)
class CapabilityResult:
    """A declared capability next to what was seen.

    Attributes:
        name: the capability.
        declared: its state as declared.
        note: the condition of a partial one.
        verdict: `confirmed`, `false claim`, `works, not declared`, `announced failure` or `not tested`.
    """

    name: str
    declared: str
    note: str
    verdict: str


@dataclass(frozen=True)
class Report:
    """The result of a run.

    Attributes:
        subject: the family or the checkpoint.
        model_type: the family.
        scope: `tiny` (the adapter on its tiny model), `weights` (a checkpoint) or `headers` (its config and headers).
        command: the command that gives the same report.
        versions: of core, the adapter, the suite, torch, transformers and Python.
        results: one for every planned check, in the order of the suite.
        levels: one for every level that was asked for.
        capabilities: one for every capability of core.
        seconds: how long the run took.
    """

    subject: str
    model_type: str
    scope: str
    command: str
    versions: Mapping[str, str]
    results: Sequence[Result]
    levels: Sequence[LevelResult]
    capabilities: Sequence[CapabilityResult]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no check failed and every level that was run is passed."""
        ran = [level for level in self.levels if level.state != "not run"]
        return bool(ran) and not self.failures and all(level.state == "passed" for level in ran)

    @property
    def failures(self) -> list[Result]:
        """The results that make the report fail."""
        return [result for result in self.results if result.outcome.is_failure]

    @property
    def counts(self) -> dict[str, int]:
        """How many checks were planned and ran, and how many ended in which way."""
        found = Counter(result.outcome for result in self.results)
        ran = len(self.results) - found[Outcome.SKIPPED]
        return {"planned": len(self.results), "ran": ran, **{str(outcome): found[outcome] for outcome in Outcome}}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema": 1,
            "subject": self.subject,
            "model_type": self.model_type,
            "scope": self.scope,
            "passed": self.passed,
            "command": self.command,
            "versions": dict(self.versions),
            "counts": self.counts,
            "levels": [{**vars(level), "level": str(level.level), "reason": level.reason} for level in self.levels],
            "capabilities": [dict(vars(capability)) for capability in self.capabilities],
            "results": [result.to_dict() for result in self.results],
            "seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the JSON form.

        Raises:
            KeyError, TypeError, ValueError: it is not a report.
        """
        if data["schema"] != 1:
            raise ValueError(f"schema {data['schema']!r}, expected 1")
        levels = [{key: value for key, value in level.items() if key != "reason"} for level in data["levels"]]
        return cls(
            subject=data["subject"],
            model_type=data["model_type"],
            scope=data["scope"],
            command=data["command"],
            versions=dict(data["versions"]),
            results=[Result.from_dict(result) for result in data["results"]],
            levels=[LevelResult(**{**level, "level": Level(level["level"])}) for level in levels],
            capabilities=[CapabilityResult(**capability) for capability in data["capabilities"]],
            seconds=float(data["seconds"]),
        )
