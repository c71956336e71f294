"""`anyblock search` on a finished run: restrictions, a baseline, sweeps, what it prints and when it refuses."""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from anyblock.cli import main
from anyblock.config import RunConfig
from anyblock.pipeline.compress import compress

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with exact scores of 3 layers with 4 ffn widths, their removal, and that of attention."""
    folder = tmp_path_factory.mktemp("search")
    chance = random.Random(0)
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(chance.choices(["tree", "old", "river", "sees"], k=8)) for _ in range(60)))
    settings = {
        "model": str(llama_dir),
        "output": str(folder / "child"),
        "data": {"path": str(text), "block_size": 16, "calibration_tokens": 128, "scoring_tokens": 64},
        "search": {"budget": {"params": "0.8x"}, "refine_rounds": 0},
        "pruning": {"repair": {"method": "none"}},
        "evaluation": {"enabled": False},
        "device": "cpu",
    }
    return compress(RunConfig.model_validate(settings)).run


@pytest.fixture
def search(finished: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `anyblock search RUN ...` in this process: exit code, stdout, stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        shown = warnings.showwarning
        try:
            with pytest.raises(SystemExit) as stop:
                main(["search", str(finished), *map(str, arguments)])
        finally:
            warnings.showwarning = shown
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def solutions(output: str) -> list[dict[str, dict[str, str]]]:
    return json.loads(output)


def test_fixed_and_forbidden_candidates(search: Call) -> None:
    code, out, _ = search("--budget", "params=0.7x", "--json")
    assert code == 0
    (free,) = solutions(out)
    removed = next(group for group, label in free["choices"].items() if label != "teacher")
    label = free["choices"][removed]
    _, out, _ = search("--budget", "params=0.7x", "--forbid", f"{removed}={label}", "--json")
    (other,) = solutions(out)
    assert other["choices"][removed] != label
    assert other["score"] >= free["score"]
    _, out, _ = search(
        "--budget", "params=0.7x", "--fix", "block_1_ffn=teacher", "--fix", "block_2_attention=no_op", "--json"
    )
    (fixed,) = solutions(out)
    assert fixed["choices"]["block_1_ffn"] == "teacher"
    assert fixed["choices"]["block_2_attention"] == "no_op"
    both = ["--forbid", "block_0_ffn=no_op", "--forbid", "block_0_ffn=teacher"]
    _, out, _ = search("--budget", "params=0.7x", *both, "--json")
    assert solutions(out)[0]["choices"]["block_0_ffn"].startswith("ffn_intermediate=")


def test_a_homogeneous_child_is_a_baseline(search: Call) -> None:
    _, out, _ = search("--budget", "params=0.7x", "--json")
    _, uniform, _ = search("--budget", "params=0.7x", "--homogeneous", "--json")
    (best,), (alike,) = solutions(out), solutions(uniform)
    for half in ("attention", "ffn"):
        assert len({label for group, label in alike["choices"].items() if group.endswith(half)}) == 1
    assert alike["score"] >= best["score"]
    code, out, err = search("--budget", "params=0.7x", "--homogeneous", "--solutions", "2")
    assert (code, out) == (2, "")
    assert "2 homogeneous solutions" in err


def test_without_a_budget_the_runs_own_counts(search: Call) -> None:
    code, out, _ = search("--json")
    assert code == 0
    assert solutions(out)[0]["choices"] == solutions(search("--budget", "params=0.8x", "--json")[1])[0]["choices"]
    (kept,) = solutions(search("--fix", "block_0_ffn=teacher", "--json")[1])
    assert kept["choices"]["block_0_ffn"] == "teacher"
    assert "no_op" in kept["choices"].values() or any("=" in label for label in kept["choices"].values())


def test_several_solutions_differ(search: Call) -> None:
    code, out, _ = search("--budget", "params=0.7x", "--solutions", "3", "--min-distance", "2", "--json")
    assert code == 0
    found = solutions(out)
    assert len(found) == 3
    for index, one in enumerate(found):
        for other in found[:index]:
            assert sum(one["choices"][group] != label for group, label in other["choices"].items()) >= 2


def test_the_table_names_status_gap_and_budgeted_costs(search: Call) -> None:
    code, out, _ = search("--budget", "params=0.7x", "--budget", "kv_heads>=2")
    assert code == 0
    line = out.splitlines()[-1]
    assert line.startswith("proven: predicted score ")
    assert "gap 0" in line
    assert "params " in line
    assert "kv_heads " in line
    assert "weight_memory" not in line


def test_a_sweep_writes_its_files(search: Call, finished: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "front"
    values = "params=0.9x,0.6x,0.01x"
    code, out, _ = search("--sweep", values, "--budget", "attention_layers>=1", "--out", out_folder)
    assert code == 0
    assert {path.name for path in out_folder.iterdir()} == {"sweep.csv", "sweep.json"}
    assert out == (out_folder / "sweep.csv").read_text() + f"{out_folder}\n"
    rows = list(csv.DictReader(io.StringIO((out_folder / "sweep.csv").read_text())))
    assert [row["status"] for row in rows] == ["infeasible", "proven", "proven"]
    assert all(float(row["costs.attention_layers"]) >= 1 for row in rows[1:])
    assert float(rows[1]["score"]) >= float(rows[2]["score"])
    assert all(float(row["costs.params"]) <= float(row["asked"]) for row in rows[1:])

    code, out, err = search("--sweep", values, "--out", out_folder)
    assert (code, out) == (2, "")
    assert "front" in err
    code, out, _ = search("--sweep", "params=0.9x", "--out", out_folder, "--overwrite", "--json")
    assert code == 0
    assert len(json.loads(out)) == 1
    assert json.loads((out_folder / "sweep.json").read_text()) == json.loads(out)

    assert search("--sweep", "kv_heads=4")[0] == 0
    assert (finished / "sweep-kv_heads" / "sweep.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "params=0.01x"], r"smallest reachable value is"),
        (["--budget", "params=0.9x", "--budget", "kv_heads>=7"], "kv_heads >= 7: the largest reachable value is 6"),
        (["--budget", "parms=0.9x"], "params"),
        (["--budget", "params=0.7x", "--fix", "block_9_ffn=no_op"], "block_9_ffn"),
        (["--budget", "params=0.7x", "--fix", "block_1_ffn=narrow"], "narrow"),
        (["--budget", "params=0.7x", "--fix", "block_1_ffn"], "is not a choice"),
        (
            ["--budget", "params=0.7x", "--forbid", "block_1_attention=no_op", "--fix", "block_1_attention=no_op"],
            "both",
        ),
        (["--budget", "latency=0.7x"], "latency"),
        (["--sweep", "params"], "is not a sweep"),
        (["--sweep", "params=0.5x..0.9x"], "range or a lower bound"),
        (["--sweep", "parms=0.5x"], "params"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    search: Call, finished: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    before = sorted(finished.rglob("*"))
    if "--sweep" in arguments:
        arguments = [*arguments, "--out", str(tmp_path / "front")]
    code, out, err = search(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(finished.rglob("*")) == before
    assert not list(tmp_path.iterdir())
