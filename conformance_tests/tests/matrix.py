"""The kill matrix: which check notices which mutant."""

from __future__ import annotations

import tempfile
from pathlib import Path

from anyblock.family import ModelFamily
from anyblock_conformance.check import base_id
from anyblock_conformance.outcome import Result
from anyblock_conformance.session import Session
from anyblock_conformance.subject import Subject


def results(family: ModelFamily) -> list[Result]:
    """Run every check on a family, also those whose dependencies failed."""
    with tempfile.TemporaryDirectory() as folder:
        return Session(Subject(family, Path(folder)), blocking=False).results()


def killers(found: list[Result]) -> dict[str, str]:
    """Return `{check: message}` of every check that failed."""
    return {base_id(result.id): f"{result.id}: {result.message}" for result in found if result.outcome.is_failure}
