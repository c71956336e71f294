"""Distillation as stages of a run: off unless asked for, reported, never to the child's harm, and resumable."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from anyblock.config import RunConfig
from anyblock.config.extension_sections import sections_of, with_sections
from anyblock.extensions import installed_extensions
from anyblock.pipeline.compress import compress
from anyblock.progress import SILENT, Progress
from anyblock.run.run_folder import RunFolder
from anyblock.stages.adapt import read_adaptation, stage_of
from anyblock_tests.stopping import Stop, StopAfter

pytest.importorskip("anyblock_distillation")
SCHEMA = with_sections(RunConfig, sections_of(installed_extensions()))
BLOCKS, MODEL = stage_of("distill-blocks"), stage_of("distill-model")


def run(settings: dict[str, Any], progress: Progress = SILENT) -> tuple[Path, str]:
    """Compress, and return the run folder and a hash of the child's files."""
    result = compress(SCHEMA.model_validate(settings), progress=progress)
    files = sorted(path for path in result.child.path.rglob("*") if path.is_file())
    return result.run, hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@pytest.fixture
def trained(settings: dict[str, Any]) -> dict[str, Any]:
    settings["search"] = {"budget": {"params": "0.6x"}, "refine_rounds": 0}
    settings["pruning"]["repair"] = {"method": "none"}  # which leaves nearly nothing to learn on these sentences
    settings["distillation"] = {
        "blocks": {"enabled": True, "epochs": 2, "learning_rate": 1e-3},
        "model": {"enabled": True, "epochs": 1, "learning_rate": 1e-3, "batch_size": 4},
    }
    return settings


def test_each_stage_lowers_the_divergence_on_held_out_text_and_has_its_line(trained: dict[str, Any]) -> None:
    folder, _ = run(trained)
    blocks, model = (read_adaptation(RunFolder.open(folder), stage) for stage in (BLOCKS, MODEL))
    assert blocks is not None
    assert model is not None
    assert blocks.kept
    assert model.kept
    assert model.after < model.before
    assert model.before == pytest.approx(blocks.after)
    assert blocks.after < blocks.before
    report = (folder / "report.md").read_text()
    (line,) = [line for line in report.splitlines() if line.startswith("| distill-blocks |")]
    assert f"KL on held-out text {blocks.before:.4f} to {blocks.after:.4f}" in line
    assert "iB" in line
    assert "changed layers were trained one by one" in report


def test_a_stage_that_does_harm_is_dropped(trained: dict[str, Any], tmp_path: Path) -> None:
    trained["distillation"]["blocks"]["enabled"] = False
    trained["distillation"]["model"]["learning_rate"] = 1e3
    folder, _ = run(trained)
    result = read_adaptation(RunFolder.open(folder), MODEL)
    assert result is not None
    assert not result.kept
    assert "The stage distill-model was dropped" in (folder / "report.md").read_text()
    trained["distillation"]["model"]["enabled"] = False
    folder, _ = run({**trained, "output": str(tmp_path / "plain")})
    assert not list((folder / "stages").glob("*distill*"))
    assert "distill" not in (folder / "report.md").read_text()
    assert weights(tmp_path / "plain") == weights(Path(trained["output"]))


@pytest.mark.parametrize(("stage", "task"), [("blocks", "Distilling blocks"), ("model", "Distilling the model")])
def test_a_stage_that_diverges_is_dropped_and_named_and_a_killed_run_ends_the_same(
    trained: dict[str, Any], tmp_path: Path, stage: str, task: str
) -> None:
    for name, section in trained["distillation"].items():
        section["enabled"] = name == stage
        section["learning_rate"] = 1e30  # the first step takes weights to where their products are infinite
    folder, want = run(trained)
    result = read_adaptation(RunFolder.open(folder), BLOCKS if stage == "blocks" else MODEL)
    assert result is not None
    assert not result.kept
    assert result.diverged
    assert result.after == result.before
    report = (folder / "report.md").read_text()
    assert f"The stage distill-{stage} was dropped: diverged" in report
    assert "diverged in epoch 1 (NaN or infinite numbers)" in report
    for steps, name in ((1, task), (0, "Evaluating")):  # in the stage, and after it
        again = {**trained, "output": str(tmp_path / name / "child")}
        with pytest.raises(Stop):
            run(again, StopAfter(steps, name))
        assert run(again)[1] == want
    trained["distillation"][stage]["enabled"] = False
    run({**trained, "output": str(tmp_path / "plain")})
    assert weights(tmp_path / "plain") == weights(Path(trained["output"]))


def weights(child: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in child.rglob("*.safetensors")}


@pytest.mark.parametrize(("task", "step"), [("Distilling blocks", 1), ("Distilling the model", 1)])
def test_a_stopped_run_ends_with_the_same_child(trained: dict[str, Any], tmp_path: Path, task: str, step: int) -> None:
    _, want = run({**trained, "output": str(tmp_path / "whole" / "child")})
    again = {**trained, "output": str(tmp_path / "again" / "child")}
    with pytest.raises(Stop):
        run(again, StopAfter(step, task))
    assert run(again)[1] == want
