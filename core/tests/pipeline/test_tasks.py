"""Scores as tasks: any process computes them from the run folder, to the byte, and what is computed stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.config import RunConfig, load_config
from anyblock.errors import InputError
from anyblock.execution.folder import TaskFolder
from anyblock.pipeline.compress import compress
from anyblock.pipeline.run_task import run_task
from anyblock.stages import scores
from anyblock_tests.stopping import Stop, StopAfter


def config_of(settings: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(settings)


def scores_of(run: Path) -> dict[str, bytes]:
    """The files of the finished stage, those with times left out."""
    (folder,) = (run / "stages").glob("*-scores")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "stage.json"}


@pytest.fixture
def narrow(settings: dict[str, Any]) -> dict[str, Any]:
    """A narrowed teacher, a sample of exact scores: as many sources of a worker's inputs as there are."""
    pruning = {"ffn": {"sizes": [0.25, 0.5]}, "hidden_size": {"sizes": [0.75]}, "attention": {"linear": True}}
    scoring = {"method": "estimated", "exact_sample": 4}
    return {**settings, "pruning": pruning, "scoring": scoring, "search": {"budget": {"params": "0.6x"}}}


def test_another_process_computes_the_same_bytes_and_nothing_is_computed_twice(
    narrow: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress(config_of(narrow))
    narrow["output"] = str(tmp_path / "again")
    with pytest.raises(Stop):
        compress(config_of(narrow), progress=StopAfter(0, "Scoring candidates"))
    (path,) = tmp_path.glob("again.run/stages/*-scores/.tasks")
    done = {file.name for file in (path / "results").iterdir()}
    assert len(done) == 1
    folder = TaskFolder(path)
    first = folder.task(*done)
    value = folder.result(first)
    (path / "results" / first.id).unlink()
    ids = _ids(path)
    ended = subprocess.run(
        [sys.executable, "-m", "anyblock.execution", str(path), *ids], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert folder.result(first) == value
    assert len(ids) > 1

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(scores.CandidateScorer, "layer", never)
    again = compress(config_of(narrow))
    assert scores_of(again.run) == scores_of(whole.run)
    assert again.child.fingerprint() == whole.child.fingerprint()


def _ids(path: Path) -> list[str]:
    return [task["id"] for task in json.loads((path / "tasks.json").read_text())]


def test_a_changed_input_is_refused_by_a_worker(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["scoring"] = {"method": "exact"}
    with pytest.raises(Stop):
        compress(config_of(settings), progress=StopAfter(0, "Scoring candidates"))
    (path,) = tmp_path.glob("child.run/stages/*-scores/.tasks")
    (tokens,) = tmp_path.glob("child.run/stages/*-data/tokens.safetensors")
    tokens.write_bytes(tokens.read_bytes()[:-8] + bytes(8))
    with pytest.raises(InputError, match=r"tokens\.safetensors is not the file that the run has"):
        run_task(path, _ids(path)[-1])


def test_tasks_have_the_threads_that_the_run_says(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    layer = scores.CandidateScorer.layer

    def watched(self: scores.CandidateScorer, index: int) -> dict[str, float]:
        found.append(torch.get_num_threads())
        return layer(self, index)

    monkeypatch.setattr(scores.CandidateScorer, "layer", watched)
    before = torch.get_num_threads()
    compress(config_of({**settings, "execution": {"threads": before + 1}, "scoring": {"method": "exact"}}))
    assert set(found) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["ray", "slurm"])
@pytest.mark.parametrize("setting", ["engine={name}", "{name}.cpus=1"])
def test_an_engine_that_is_not_installed_is_named_with_its_distribution(
    monkeypatch: pytest.MonkeyPatch, name: str, setting: str
) -> None:
    monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "anyblock-ray,anyblock-slurm")
    with pytest.raises(InputError, match=f"pip install anyblock-{name}"):
        load_config(None, [f"execution.{setting.format(name=name)}"], {"model": "m", "output": "o"})


def test_an_unknown_engine_is_refused_before_anything_is_written(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="there is no executor 'locla'") as found:
        compress(config_of({**settings, "execution": {"engine": "locla"}}))
    assert "did you mean 'local'?" in found.value.hint
    assert not Path(settings["output"] + ".run").exists()
