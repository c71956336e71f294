"""The benchmark `core/benchmarks/equal_bytes.py` on a tiny model: every kind of row, kept, and computed once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from anyblock_tests.fixtures import TRAINED

SCRIPT = Path(__file__).parents[4] / "core" / "benchmarks" / "equal_bytes.py"
TEXT = (
    "\n".join(f"{a} {b} {c} {a}." for a in ("tree", "house", "a") for b in ("sees", "is") for c in ("old", "the")) * 9
)
KEYS = [
    "device=cpu", "data.block_size=32", "data.calibration_tokens=256", "data.scoring_tokens=64", "data.evaluation_tokens=64",
    "data.batch_size=2", "pruning.ffn.sizes=[0.5]", "search.refine_rounds=0",
]  # fmt: skip
OPTIONS = ["--types", "q8_0,q4_0", "--pruned-types", "q8_0", "--shares", "0.45,0.05"]


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the workspace is not here")
@pytest.mark.slow
def test_every_row_is_computed_once_and_keeps_its_share(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    command = [sys.executable, str(SCRIPT), str(TRAINED), *KEYS, "--data", str(tmp_path / "text.txt")]
    command += ["--output", str(tmp_path / "out"), *OPTIONS]
    one = subprocess.run([*command, "--row", "joint@0.45"], capture_output=True, text=True, check=True)
    assert len(one.stdout.splitlines()) == 3
    written = (tmp_path / "out" / "joint@0.45.json").stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "out" / "joint@0.45.json").stat().st_mtime_ns == written
    rows = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    small = {"prune@0.05", "prune-q8_0@0.05", "joint@0.05"}
    assert rows.keys() == {"uniform-q8_0", "uniform-q4_0", "prune@0.45", "prune-q8_0@0.45", "joint@0.45"} | small
    assert all("impossible" in rows[name] for name in small)
    for name, row in rows.items():
        assert name in done.stdout
        if name not in small:
            assert row["bytes"] <= row["counted"]
            assert row["kl"] >= 0
            assert not name.endswith("@0.45") or row["share"] <= 0.45
    assert rows["uniform-q4_0"]["bytes"] < rows["uniform-q8_0"]["bytes"]
    wrong = subprocess.run([*command, "--row", "joint@0.7"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "there is no row 'joint@0.7'" in wrong.stderr
