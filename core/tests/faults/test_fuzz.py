"""Coverage-guided fuzzing of the header and index readers; `nox -s faults` brings atheris along."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fault_harness" / "fuzz.py"
RUNS = 150_000


@pytest.mark.faults
@pytest.mark.parametrize("reader", ["header", "index"])
def test_fuzzed(tmp_path: Path, reached: Callable[[str], None], reader: str) -> None:
    pytest.importorskip("atheris", reason="atheris has wheels for Linux alone, and `nox -s faults` installs it")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    bounds = [
        "-seed=1",
        f"-runs={RUNS}",
        "-max_len=2048",
        "-timeout=120",
        "-rss_limit_mb=1024",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(
        [sys.executable, str(FUZZ), reader, *bounds, str(corpus)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
    coverage = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    assert int(coverage[-1][1]) > int(coverage[0][1]), "the fuzzer learnt nothing: nothing is instrumented"
    reached(f"fuzzing the {reader} reader: {RUNS:,} runs, coverage {coverage[0]} -> {coverage[-1]} (edges, features)")
