"""A run in jobs: the bytes of one machine, with submitit's local executor and with Slurm's commands as processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anyblock.cli import main
from anyblock.contract.executor import Needs, Tasks
from anyblock.errors import ExecutionError, InputError
from anyblock.execution.folder import TaskFolder
from anyblock.execution.run import run_tasks
from anyblock.progress import SILENT
from anyblock_slurm.executor import SlurmExecutor, SlurmSettings
from anyblock_tests.task_runs import bytes_of_run, run_arguments
from submitit.core.utils import UncompletedJobError

FAKE = Path(__file__).parent / "assets" / "fake_slurm.py"
LOCAL = {"cluster": "local", "poll_seconds": 0.05}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the run gives without jobs."""
    return bytes_of_run(tmp_path_factory.mktemp("local") / "child")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands on the path; returns the folder with what was asked of them."""
    state, commands = tmp_path / "slurm", tmp_path / "bin"
    state.mkdir()
    commands.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" {name} "$@"\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(state))
    return state


@pytest.mark.slow
def test_processes_of_this_machine_give_the_same_bytes(local: dict[str, bytes], tmp_path: Path) -> None:
    assert bytes_of_run(tmp_path / "child", "slurm", jobs=2, **LOCAL) == local


@pytest.mark.slow
def test_an_array_gives_the_same_bytes_also_where_a_job_is_killed(
    local: dict[str, bytes], slurm: Path, tmp_path: Path
) -> None:
    """One of two jobs is killed as soon as its process is there; its tasks are in the next array."""

    def kill() -> None:
        step = slurm / "100_1.step"
        while not (step.is_file() and step.read_text()):
            time.sleep(0.01)
        os.kill(int(step.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    asked = {"partition": "quick", "minutes": 7, "parameters": "{account: lab}"}
    found = bytes_of_run(tmp_path / "child", "slurm", jobs=2, poll_seconds=0.05, **asked)
    thread.join()
    assert found == local
    first, second = (path.read_text() for path in sorted(slurm.glob("*.sbatch")))
    assert all(line in first for line in ("--partition=quick", "--time=7", "--account=lab", "--cpus-per-task=1"))
    assert "--array=0-1" in first
    assert second
    assert (slurm / "100_1.state").read_text() == "FAILED"


def test_only_the_task_at_which_a_job_ended_counts_as_tried(tmp_path: Path) -> None:
    folder = TaskFolder(tmp_path)
    share = folder.prepare({}, "scores", [(f"task {number}", {"layer": number}) for number in range(4)])
    tasks = Tasks(tmp_path, deque(), lambda task: task is share[0])
    job = SimpleNamespace(job_id="7", exception=lambda: UncompletedJobError("gone"), stderr=lambda: "out of memory")
    (outcome,) = SlurmExecutor()._failed(tasks, job, share[1:], len(share))
    assert outcome.task is share[1]
    assert str(outcome.error) == "job 7 ended: out of memory"
    assert list(tasks.waiting) == share[2:]


@pytest.mark.slow
def test_what_slurm_does_not_take_is_one_message(slurm: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Slurm does not take the jobs: .*invalid partition specified: closed"):
        bytes_of_run(tmp_path / "child", "slurm", partition="closed")


@pytest.mark.slow
def test_a_task_that_always_fails_is_reported_with_its_log(tmp_path: Path) -> None:
    executor = SlurmExecutor(SlurmSettings(**LOCAL))
    folder = TaskFolder(tmp_path / ".tasks")
    tasks = folder.prepare({"threads": 1}, "no such kind", [("a task of no kind", {"layer": 0})])
    executor.open(Needs(tmp_path, {}, "cpu", 1, SILENT))
    with pytest.raises(ExecutionError, match=r"(?s)1 of 1 tasks failed 3 times: a task of no kind.*KeyError"):
        list(run_tasks(executor, folder, tasks))
    assert folder.log(tasks[0]).read_text().count("Traceback") == 3


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the command says when it refuses."""
    with pytest.raises(SystemExit) as ended:
        main(["compress", *arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "Traceback" not in said
    return said


def test_a_machine_without_slurm_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused([*run_arguments(tmp_path / "child"), "--engine", "slurm"], capsys)
    assert "Slurm's sbatch, srun, sacct is not found on this machine" in said
    assert not list(tmp_path.iterdir())


def test_a_gpu_for_a_run_without_one_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted: list[Any] = ["--engine", "slurm", "execution.slurm.gpus=1", "execution.slurm.cluster=local"]
    said = refused([*run_arguments(tmp_path / "child"), *wanted], capsys)
    assert "execution.slurm.gpus is 1, and the run computes on cpu" in said
    assert not list(tmp_path.iterdir())
