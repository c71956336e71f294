"""A run on a Ray cluster: the bytes of one machine, also where workers die, and one message where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from anyblock.cli import main
from anyblock.contract.executor import Needs
from anyblock.errors import ExecutionError, InputError
from anyblock.execution.folder import TaskFolder
from anyblock.execution.run import run_tasks
from anyblock.progress import SILENT
from anyblock_ray.executor import RayExecutor, RaySettings
from anyblock_tests.task_runs import bytes_of_run, run_arguments

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
STORE = 80 * 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node with two CPUs."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the run gives without Ray."""
    return bytes_of_run(tmp_path_factory.mktemp("local") / "child")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_bytes_are_those_of_one_machine(
    cluster: Any, local: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    assert bytes_of_run(tmp_path / "child", "ray", address=cluster.address, workers=workers) == local


class Killer(threading.Thread):
    """Kills the first worker below this process that computes a task."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.killed = ""
        self.ended = threading.Event()

    def run(self) -> None:
        while not (self.killed or self.ended.is_set()):
            for process in psutil.Process().children(recursive=True):
                try:
                    title = " ".join(process.cmdline())
                    if title.startswith("ray::scores of layer"):
                        process.send_signal(signal.SIGKILL)
                        self.killed = title
                        break
                except psutil.Error:
                    continue
            time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(cluster: Any, local: dict[str, bytes], tmp_path: Path) -> None:
    killer = Killer()
    killer.start()
    found = bytes_of_run(tmp_path / "child", "ray", address=cluster.address, workers=2)
    killer.ended.set()
    killer.join()
    assert killer.killed.startswith("ray::scores of layer ")
    assert found == local


@pytest.mark.faults
def test_a_lost_node_changes_nothing(cluster: Any, local: dict[str, bytes], tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE)

    def lose() -> None:
        while not list(tmp_path.glob("child.run/stages/*-scores/.tasks/results/*")):
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    assert bytes_of_run(tmp_path / "child", "ray", address=cluster.address) == local
    thread.join()


@pytest.mark.faults
def test_a_killed_run_goes_on_in_another_place(cluster: Any, local: dict[str, bytes], tmp_path: Path) -> None:
    """Killed at its first result with Ray, the run ends in its own process, which computes what is missing."""
    places = [*run_arguments(tmp_path / "child"), "--engine", "ray", f"execution.ray.address={cluster.address}"]
    with subprocess.Popen([sys.executable, "-m", "anyblock", "compress", *places], stderr=subprocess.DEVNULL) as driver:
        while not list(tmp_path.glob("child.run/stages/*-scores/.tasks/results/*")):
            assert driver.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        driver.kill()
    assert not (tmp_path / "child").exists()
    assert bytes_of_run(tmp_path / "child") == local


def needs(tmp_path: Path, **changes: Any) -> Needs:
    return Needs(**{"run": tmp_path, "distributions": {}, "device": "cpu", "threads": 1, "progress": SILENT} | changes)


@pytest.mark.slow
def test_a_node_that_died_unnoticed_is_left_out(cluster: Any, tmp_path: Path) -> None:
    cluster.remove_node(cluster.add_node(num_cpus=2, object_store_memory=STORE), allow_graceful=False)
    notes: list[str] = []
    executor = RayExecutor(RaySettings(address=cluster.address))
    try:
        executor.open(needs(tmp_path, progress=SimpleNamespace(note=notes.append)))
    finally:
        executor.close()
    assert "room for 2 tasks at once" in notes[0]


@pytest.mark.slow
def test_a_task_that_always_fails_is_reported_with_its_log(cluster: Any, tmp_path: Path) -> None:
    executor = RayExecutor(RaySettings(address=cluster.address))
    folder = TaskFolder(tmp_path / ".tasks")
    plan = {"threads": 1, "distributions": {}}
    tasks = folder.prepare(plan, "no such kind", [("a task of no kind", {"layer": 0})])
    try:
        executor.open(needs(tmp_path))
        with pytest.raises(
            ExecutionError, match=r"(?s)1 of 1 tasks failed 3 times: a task of no kind.*KeyError"
        ) as found:
            list(run_tasks(executor, folder, tasks))
    finally:
        executor.close()
    assert found.value.what.count("Traceback") == folder.log(tasks[0]).read_text().count("Traceback") == 3


@pytest.mark.slow
def test_nodes_that_cannot_compute_are_refused_by_name(cluster: Any, tmp_path: Path) -> None:
    def refused(settings: dict[str, Any], **changes: Any) -> str:
        executor = RayExecutor(RaySettings(address=cluster.address, **settings))
        try:
            with pytest.raises(InputError) as found:
                executor.open(needs(tmp_path, **changes))
            return str(found.value)
        finally:
            executor.close()

    said = refused({}, distributions={"torch": "0.1", "anyblock-unheard-of": "3"})
    assert "has torch 2." in said
    assert "the run 0.1" in said
    assert "has anyblock-unheard-of not at all, the run 3" in said
    assert "CPU is short" in refused({"cpus": 64})
    assert "GPU is short" in refused({}, device="cuda")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_at_the_address_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    arguments = [*run_arguments(tmp_path / "child"), "--engine", "ray", f"execution.ray.address={address}"]
    with pytest.raises(SystemExit) as ended:
        main(["compress", *arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"no Ray cluster answers at {address}" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_gpu_for_a_run_without_one_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*run_arguments(tmp_path / "child"), "--engine", "ray", "execution.ray.gpus=1.0"]
    with pytest.raises(SystemExit) as ended:
        main(["compress", *arguments])
    assert ended.value.code == 2
    assert "execution.ray.gpus is 1, and the run computes on cpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
