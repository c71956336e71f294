"""Killed anywhere with SIGKILL: nothing looks complete that is not, and the next run ends as if nothing had happened.

A victim is a fork that runs the real command line. It is killed before a change of the file system or in the middle of one
(a file half written, an output created and empty), at points that an uninterrupted run has passed, or at a random time. A push
is killed before, in the middle of and after every request to a hub on this machine as well.
"""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Callable

import pytest
from fault_harness.scene import Props, Scene
from fault_harness.scenes import SCENES, compress_scene, convert_scene
from fault_harness.trees import STAGES, finished_stages

POINTS = {
    "convert": (60, 20),
    "compress": (80, 20),
    "compress with a hidden size": (30, 5),
    "compress under latency": (30, 5),
    "export to transformers": (25, 5),
    "export to nemotron-nas": (15, 5),
    "export to anymodel": (15, 5),
    "push": (0, 20),
    "push to a branch": (0, 10),
    "push an exported form": (30, 10),
    "push over files": (0, 10),
}
"""How often the long version kills each command: at points spread over its changes, and at random times. The points of requests
come on top, all of them."""
REQUESTS = {
    "repository": "POST .*/api/repos/create",
    "branch": "POST .*/branch/",
    "file": "PUT .*/lfs/",
    "commit": "POST .*/commit/",
}


def of_every_stage(scene: Scene) -> list[tuple[str, str, int]]:
    """Points of every stage, in their order: in the middle of its work, and before it says that it is finished."""
    points = []
    for stage in STAGES:
        inside = f"stages/{stage}"
        count = sum(bool(re.search(inside, event)) for event in scene.events)
        assert count, f"stage {stage} writes nothing"
        points += [("torn", inside, max(1, count // 3)), ("before", rf"{inside}/\.stage\.json", 1)]
    points.insert(5, ("torn", "run/.teacher", 20))
    points.insert(-4, ("before", r"/\.child\.tmp", 20))
    return points


def test_convert_killed(props: Props, reached: Callable[[str], None]) -> None:
    scene = convert_scene(props)
    points = scene.spread(8)
    for number, mode in points:
        scene.kill(number, mode)
    reached(f"convert: killed at {len(points)} of {len(scene.events)} changes of the file system")


def test_compress_killed_in_every_stage(props: Props, reached: Callable[[str], None]) -> None:
    scene = compress_scene(props)
    points = of_every_stage(scene)
    for mode, match, number in points:  # each run continues where the one before it was killed
        scene.kill(number, mode, match, again=False)
    scene.again("at the end")
    assert set(scene.stages) == set(STAGES)
    assert {f"stage {stage}" for stage in scene.stages} <= scene.places.keys()
    reached(f"compress: killed {len(points)} times in one run, in every stage")


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("push", ["repository", "file", "commit"]),
        ("push to a branch", ["branch"]),
        ("push an exported form", ["file"]),
        ("push over files", ["commit"]),
    ],
)
def test_push_killed(props: Props, reached: Callable[[str], None], name: str, at: list[str]) -> None:
    pytest.importorskip("anyblock_hub")
    scene = SCENES[name](props)
    points = [(request, mode) for request in at for mode in ("before", "torn", "after")]
    for request, mode in points:
        scene.kill(2 if request == "file" else 1, mode, REQUESTS[request])
    reached(f"{name}: killed {len(points)} times around {', '.join(at)}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(props: Props, number: signal.Signals, code: int) -> None:
    scene = compress_scene(props)
    hold = {"mode": "hold", "at": 2, "match": "stages/06-", "release": str(props.root / "never")}
    victim = props.warm.start(scene.argv, root=props.root, fault=hold)
    victim.reached()
    done = victim.join(kill_after=0, signal=number)
    assert done.code == code, done.stderr
    assert "what was finished is kept, the same command continues" in done.stderr
    assert not done.crashed
    kept = finished_stages(props.root / "child.run")
    assert len(kept) >= 3
    assert not list((props.root / "child.run").glob(".holder*")), "the lock was released"
    scene.look(f"signal {number}")
    scene.again(f"signal {number}")


@pytest.mark.faults
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_at_any_time(props: Props, reached: Callable[[str], None], number: signal.Signals, code: int) -> None:
    chance = random.Random(0)
    scene = compress_scene(props)
    stopped = 0
    for _ in range(60):
        done = scene.run(kill_after=chance.uniform(0, scene.seconds), signal=number)
        assert not done.crashed, done.stderr
        if done.code == 0:  # nothing was left to do, or else the signal was lost
            assert "Evaluating: done" in done.stderr, done.stderr
            scene.clear()
            continue
        assert done.code == code, done.stderr
        stopped += 1
        scene.look(f"signal {number}")
        scene.again(f"signal {number}")
    reached(f"compress: stopped {stopped} times by {number.name}")


def test_every_command_has_its_points() -> None:
    assert POINTS.keys() == SCENES.keys()
    assert sum(map(sum, POINTS.values())) >= 200


@pytest.mark.faults
@pytest.mark.parametrize("name", SCENES)
def test_killed_anywhere(props: Props, reached: Callable[[str], None], name: str) -> None:
    chance = random.Random(0)
    scene = SCENES[name](props)
    spread, at_random = POINTS[name]
    points = scene.spread(spread)
    for number, mode in points:
        scene.kill(number, mode)
    killed = sum(scene.kill_at_random(chance) for _ in range(at_random))
    assert len(points) >= min(spread, len(scene.events))
    where = ", ".join(f"{name} {count}" for name, count in sorted(scene.places.items()))
    changes = f"{len({number for number, _ in points})} of {len(scene.events)} changes"
    reached(f"{name}: killed {len(points)} times at {changes} and at {killed} random times ({where})")
