"""Killed anywhere with SIGKILL: nothing looks complete that is not, and the next run ends as if nothing had happened.

A victim is a fork that runs the real command line. It is killed before a change of the file system or in the middle of one
(a file half written, an output created and empty), at points that an uninterrupted run has passed, or at a random time.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fault_harness.calls import compress_arguments
from fault_harness.client import Warm
from fault_harness.trees import finished_stages, tree

STAGES = range(10)


@dataclass
class Scene:
    """A command, its inputs, and what it leaves when nobody kills it."""

    warm: Warm
    argv: list[str]
    root: Path
    inputs: list[Path]
    whole: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    before: list[dict[str, str]] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def record(self) -> None:
        self.before = [tree(path) for path in self.inputs]
        done = self.warm.run(self.argv, root=self.root, fault={"mode": "record", "at": 0})
        assert done.code == 0, done.stderr
        self.events, self.seconds = done.told[-1], done.seconds
        self.expected = tree(self.root)
        self.stages = finished_stages(self.root / "child.run")
        self.clear()

    def clear(self) -> None:
        for path in self.root.iterdir():
            if path not in self.inputs and path.is_dir():
                shutil.rmtree(path)

    def kill(self, number: int, mode: str, match: str = "", *, again: bool = True) -> None:
        """Kill at a point, look, run again, and look again."""
        done = self.warm.run(self.argv, root=self.root, fault={"mode": mode, "at": number, "match": match})
        assert done.code == -signal.SIGKILL, f"{mode} {match} {number}: {done.code} {done.stderr}"
        where = str(done.told[-1])
        self.places[place(where)] += 1
        self.look(f"{mode} {number} {where}")
        if again:
            self.again(f"{mode} {number} {where}")

    def kill_at_random(self, chance: random.Random) -> bool:
        done = self.warm.run(self.argv, kill_after=chance.uniform(0, self.seconds))
        if done.code == 0:
            self.clear()
            return False
        self.look("at a random time")
        self.again("at a random time")
        return True

    def look(self, where: str) -> None:
        """Whatever is there under its final name is complete."""
        assert [tree(path) for path in self.inputs] == self.before, f"{where}: an input was changed"
        for name in self.whole:
            if (self.root / name).exists():
                found = {f"{name}/{file}": digest for file, digest in tree(self.root / name).items()}
                wanted = {file: digest for file, digest in self.expected.items() if file.startswith(f"{name}/")}
                assert found == wanted, f"{where}: {name} is there and is not complete"
        for stage, files in finished_stages(self.root / "child.run").items():
            assert files.keys() == self.stages[stage].keys(), f"{where}: {stage}"

    def again(self, where: str) -> None:
        """The same command ends as if nothing had happened, and leaves nothing else."""
        # Killed behind the last rename, convert is done, and does not replace what is there without being told.
        done = self.warm.run([*self.argv, *(["--overwrite"] if (self.root / "out").exists() else [])])
        assert done.code == 0, f"{where}: {done.stderr}"
        assert tree(self.root) == self.expected, where
        assert [tree(path) for path in self.inputs] == self.before, f"{where}: an input was changed"
        self.clear()


def place(event: str) -> str:
    """The stage of a path, or the part of the run that it belongs to."""
    if stage := re.search(r"stages/(\d)-", event):
        return f"stage {stage[1]}"
    return "teacher" if "teacher" in event else "child" if ".run" not in event else "run folder"


def convert_scene(warm: Warm, root: Path, model: Path) -> Scene:
    scene = Scene(warm, ["convert", str(model), str(root / "out")], root, [model], ["out"])
    scene.record()
    return scene


def compress_scene(warm: Warm, root: Path, model: Path, text: Path) -> Scene:
    scene = Scene(warm, compress_arguments(model, root / "child", text), root, [model], ["child", "child.run/teacher"])
    scene.record()
    return scene


def spread(events: list[str], count: int) -> list[tuple[int, str]]:
    """Points evenly spread over a run, in both modes by turns."""
    numbers = sorted({1 + index * len(events) // count for index in range(count)} | {len(events)})
    return [(number, ("before", "torn")[index % 2]) for index, number in enumerate(numbers)]


def of_every_stage(events: list[str]) -> list[tuple[str, str, int]]:
    """Points of every stage, in their order: in the middle of its work, and before it says that it is finished."""
    points = []
    for stage in STAGES:
        inside = rf"stages/{stage}-"
        count = sum(bool(re.search(inside, event)) for event in events)
        assert count, f"stage {stage} writes nothing"
        points += [("torn", inside, max(1, count // 3)), ("before", rf"{inside}\w+/\.stage\.json", 1)]
    points.insert(5, ("torn", "run/.teacher", 20))
    points.insert(-4, ("before", r"/\.child\.tmp", 20))
    return points


def test_convert_killed(warm: Warm, tmp_path: Path, model: Path, reached: Callable[[str], None]) -> None:
    scene = convert_scene(warm, tmp_path, model)
    points = spread(scene.events, 8)
    for number, mode in points:
        scene.kill(number, mode)
    reached(f"convert: killed at {len(points)} of {len(scene.events)} changes of the file system")


def test_compress_killed_in_every_stage(
    warm: Warm, tmp_path: Path, model: Path, text: Path, reached: Callable[[str], None]
) -> None:
    scene = compress_scene(warm, tmp_path, model, text)
    points = of_every_stage(scene.events)
    for mode, match, number in points:  # each run goes on where the one before it was killed
        scene.kill(number, mode, match, again=False)
    scene.again("at the end")
    assert {f"stage {stage}" for stage in STAGES} <= scene.places.keys()
    reached(f"compress: killed {len(points)} times in one run, in every stage")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(
    warm: Warm, tmp_path: Path, model: Path, text: Path, number: signal.Signals, code: int
) -> None:
    scene = compress_scene(warm, tmp_path, model, text)
    done = warm.run(scene.argv, kill_after=scene.seconds * 0.6, signal=number)
    assert done.code == code, done.stderr
    assert "what was finished is kept, the same command continues" in done.stderr
    assert not done.crashed
    kept = finished_stages(tmp_path / "child.run")
    assert len(kept) >= 3
    assert not list((tmp_path / "child.run").glob(".holder*")), "the lock was released"
    scene.look(f"signal {number}")
    scene.again(f"signal {number}")


@pytest.mark.faults
def test_killed_anywhere(warm: Warm, tmp_path: Path, model: Path, text: Path, reached: Callable[[str], None]) -> None:
    chance = random.Random(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    scenes = {
        "convert": (convert_scene(warm, tmp_path / "a", model), 80, 20),
        "compress": (compress_scene(warm, tmp_path / "b", model, text), 160, 40),
    }
    total = 0
    for name, (scene, count, at_random) in scenes.items():
        points = spread(scene.events, count)
        for number, mode in points:
            scene.kill(number, mode)
        killed = sum(scene.kill_at_random(chance) for _ in range(at_random))
        total += len(points) + killed
        reached(
            f"{name}: killed at {len(points)} of {len(scene.events)} changes and {killed} random times; {dict(scene.places)}"
        )
    assert total >= 200
