"""A small teacher and a text next to it, and one finished run of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from anyblock.cli import app
from anyblock_terminal import estimate
from typer.testing import CliRunner

ROOT = Path(__file__).parents[4]


def make_folder(folder: Path) -> Path:
    """Put `teacher` and `text.txt` into a folder."""
    shutil.copytree(ROOT / "core" / "tests" / "assets" / "tiny-llama", folder / "teacher")
    shutil.copy(ROOT / "demo" / "text" / "calibration.txt", folder / "text.txt")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return make_folder(tmp_path)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished run, with a child next to it."""
    folder = make_folder(tmp_path_factory.mktemp("run"))
    small = [
        "data.block_size=64",
        "data.calibration_tokens=512",
        "data.scoring_tokens=128",
        "data.evaluation_tokens=128",
    ]
    places = [str(folder / "teacher"), str(folder / "child")]
    command = ["compress", *places, "--data", str(folder / "text.txt"), "--budget", "params=0.8x", *small]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "AFTER", 0.0)  # it takes no minute
        done = CliRunner().invoke(app, [*command, "search.refine_rounds=1"])
    assert done.exit_code == 0, done.output
    return folder / "child.run"
