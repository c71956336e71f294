"""Compute the whole kill matrix, mutants by checks, and write it into core/docs/conformance.md.

    python conformance_tests/scripts/write_matrix.py

It takes some minutes. The tests compute every row again and compare it with the page.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from matrix import killers, results, row, write
from mutants import MUTANTS

if __name__ == "__main__":
    rows = []
    for mutant in MUTANTS:
        found = killers(results(mutant.family()))
        rows.append(row(mutant, found))
        sys.stderr.write(f"{mutant.name}: {mutant.check}, {len(found)} checks failed\n")
    write(rows)
