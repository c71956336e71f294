"""Full disks, quotas, dying and changing sources, too little memory: a message, nothing half-written, and a run that goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_harness.calls import compress_arguments
from fault_harness.client import Outcome, Warm
from fault_harness.trees import STAGES, finished_stages, tree


def refused(done: Outcome, *words: str, code: int = 1) -> None:
    assert not done.crashed, done.stderr
    assert done.code == code, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fills_up_during_convert(warm: Warm, tmp_path: Path, model: Path, code: int) -> None:
    before = names(tmp_path)
    argv = ["convert", model, tmp_path / "out"]
    fault = {"mode": "error", "at": 40, "code": code, "sticky": True}
    refused(warm.run(argv, root=tmp_path, fault=fault), os.strerror(code), "to do:")
    assert names(tmp_path) == before
    assert warm.run(argv).code == 0


def test_a_disk_that_fills_up_in_every_stage(warm: Warm, tmp_path: Path, model: Path, text: Path) -> None:
    argv = compress_arguments(model, tmp_path / "child", text)
    for number, stage in enumerate(STAGES):  # each run continues where the one before it found the disk full
        code = (errno.ENOSPC, errno.EDQUOT)[number % 2]
        fault = {"mode": "error", "at": 4, "code": code, "match": f"stages/{stage}"}
        refused(warm.run(argv, root=tmp_path, fault=fault), os.strerror(code), "to do:")
        assert len(finished_stages(tmp_path / "child.run")) == number
    again = warm.run(argv)
    assert again.code == 0, again.stderr
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]


def test_a_quota(warm: Warm, tmp_path: Path, model: Path) -> None:
    before = names(tmp_path)
    done = warm.run(["convert", model, tmp_path / "out"], limits={"FSIZE": 60_000})
    refused(done, os.strerror(errno.EFBIG), "to do:")
    assert names(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_small_disk_is_seen_before_the_work(warm: Warm, model: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1 << 20)
    refused(warm.run(["convert", model, disk / "out"]), "free", "expected:", "to do: free some space")
    assert names(disk) == set()


@pytest.mark.parametrize("command", ["compress", "export"])
def test_too_little_space_is_seen_before_the_work(
    warm: Warm, tmp_path: Path, model: Path, text: Path, command: str
) -> None:
    argv = compress_arguments(model, tmp_path / "child", text)
    if command == "export":
        assert warm.run(argv).code == 0
        argv = ["export", tmp_path / "child", tmp_path / "out", "--format", "anymodel"]
    before = names(tmp_path)
    prepared: dict[str, Any] = {"name": "little_space", "arguments": {"free": 500_000}}
    refused(warm.run(argv, prepare=prepared), "has 500.0 kB free", "expected:", "to do: free some space")
    assert names(tmp_path) == before
    if command == "compress":  # what is there already needs no more room
        assert warm.run(argv).code == 0
        assert warm.run(argv, prepare=prepared).code == 0


def test_a_read_only_disk(warm: Warm, model: Path, text: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1 << 26)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for argv in (["convert", model, disk / "out"], compress_arguments(model, disk / "child", text)):
        refused(warm.run(argv), os.strerror(errno.EROFS), str(disk))
    assert names(disk) == set()


def test_a_small_disk_full_in_the_middle(
    warm: Warm, model: Path, text: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(19 << 20)
    (disk / "others").write_bytes(b"\0" * (1 << 20))
    argv = compress_arguments(model, disk / "child", text)
    prepared: dict[str, Any] = {"name": "little_space", "arguments": {"free": 1 << 40}}  # the estimate sees room
    with (disk / "fill").open("wb") as file:
        file.write(b"\0" * (17 << 20))
    refused(warm.run(argv, prepare=prepared), os.strerror(errno.ENOSPC), "to do:")
    assert not (disk / "child").exists()
    (disk / "fill").unlink()
    again = warm.run(argv, prepare=prepared)
    assert again.code == 0, again.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without rights")
def test_a_target_without_rights(warm: Warm, model: Path) -> None:
    refused(warm.run(["convert", model, "/proc/out"]), "/proc/out", "to do:")


@pytest.mark.parametrize("how", ["shrink", "change"])
def test_a_source_that_changes_while_it_is_read(warm: Warm, tmp_path: Path, model: Path, how: str) -> None:
    weights = model / "model.safetensors"
    prepared = {"name": "changing_source", "arguments": {"path": str(weights), "how": how, "after": 12}}
    done = warm.run(["convert", model, tmp_path / "out"], prepare=prepared)
    refused(done, str(weights), "while it was being copied", code=2)
    assert names(tmp_path) == {"model"}


def test_a_source_on_a_dying_disk(warm: Warm, tmp_path: Path, model: Path) -> None:
    weights = model / "model.safetensors"
    for after in (0, 1, 5):
        prepared = {"name": "failing_reads", "arguments": {"path": str(weights), "after": after}}
        done = warm.run(["convert", model, tmp_path / "out"], prepare=prepared)
        assert done.code in (1, 2), done.stderr
        assert not done.crashed, done.stderr
        assert os.strerror(errno.EIO) in done.stderr
        assert str(weights) in done.stderr
        assert names(tmp_path) == {"model"}


def test_too_little_memory(warm: Warm, tmp_path: Path, model: Path, text: Path) -> None:
    """Batches so large that what they need is in no gap of the memory that the process has already."""
    long = tmp_path / "long.txt"
    long.write_text(text.read_text() * 40)
    large = ["data.block_size=128", "data.batch_size=32", "data.calibration_tokens=8192", "data.scoring_tokens=4096"]
    large += ["data.evaluation_tokens=4096"]
    argv = compress_arguments(model, tmp_path / "child", long, *large)
    before = tree(model)
    done = warm.run(argv, more=1 << 20)
    refused(done)
    assert not (tmp_path / "child").exists()
    assert tree(model) == before
    assert warm.run(argv).code == 0
