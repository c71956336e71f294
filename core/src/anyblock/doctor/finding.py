"""What the doctor found: facts, and faults with the command that mends each."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what, and the exact command that mends it (empty when there is none to run)."""

    what: str
    command: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"what": self.what, "command": self.command}


@dataclass
class Examined:
    """One part of the examination: a title, facts in the order they are shown, and what is wrong."""

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, what: str, command: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(what, command))


@dataclass(frozen=True)
class Diagnosis:
    """The whole examination."""

    sections: Mapping[str, Examined]

    @property
    def findings(self) -> list[Finding]:
        """Everything that is wrong, in the order of the sections."""
        return [finding for section in self.sections.values() for finding in section.findings]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the facts by section, and the list of findings."""
        facts = {key: section.facts for key, section in self.sections.items()}
        return {"healthy": self.healthy, **facts, "findings": [finding.to_dict() for finding in self.findings]}


def pip(verb: str, *arguments: str) -> str:
    """Return the command line that runs pip on *this* interpreter; uv's, where the environment has no pip."""
    python = sys.executable or "python"
    if find_spec("pip") is not None:
        return shlex.join([python, "-m", "pip", verb, *arguments])
    uv = ["--reinstall" if argument == "--force-reinstall" else argument for argument in arguments]
    return shlex.join(["uv", "pip", verb, "--python", python, *uv])
