"""The kill matrix: which check notices which mutant, computed and as the documentation shows it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from anyblock.family import ModelFamily
from anyblock_conformance.check import base_id
from anyblock_conformance.outcome import Result
from anyblock_conformance.registry import all_checks
from anyblock_conformance.session import Session
from anyblock_conformance.subject import Subject
from mutants import Mutant

PAGE = Path(__file__).parents[2] / "core" / "docs" / "conformance.md"
MEMORY = "/dev/shm"
"""Where files cost no writing to a disk, on Linux."""
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
TARGET, DEPENDENT = "**X**", "x"


def results(family: ModelFamily) -> list[Result]:
    """Run every check on a family, also those whose dependencies failed."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        return Session(Subject(family, Path(folder)), blocking=False).results()


def killers(found: list[Result]) -> dict[str, str]:
    """Return `{check: message}` of every check that failed."""
    return {base_id(result.id): f"{result.id}: {result.message}" for result in found if result.outcome.is_failure}


def row(mutant: Mutant, found: dict[str, str]) -> str:
    """Return the mutant's row of the table: one cell for every check."""
    cells = [TARGET if check.id == mutant.check else DEPENDENT if check.id in found else "" for check in all_checks()]
    return f"| {mutant.name} | {' | '.join(cells)} |"


def table(rows: list[str]) -> str:
    """Return the whole table, and the legend of its columns."""
    checks = all_checks()
    legend = "\n".join(f"{number}. `{check.id}`: {check.summary}" for number, check in enumerate(checks, 1))
    head = f"| mutant | {' | '.join(str(number) for number in range(1, len(checks) + 1))} |"
    return "\n".join([legend, "", head, f"|---|{'---|' * len(checks)}", *rows])


def documented_rows() -> dict[str, str]:
    """Return the rows of the table in the documentation by mutant."""
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| mutant")]
    return {line.split("|")[1].strip(): line for line in rows}


def write(rows: list[str]) -> None:
    """Put the table into the documentation."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")
