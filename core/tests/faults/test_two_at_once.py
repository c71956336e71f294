"""Two processes on one run, one target, one set of scores: one of them works, the other is told who does, and nothing is mixed."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from fault_harness.calls import compress_arguments
from fault_harness.client import Background, Outcome, Warm
from fault_harness.scene import Props
from fault_harness.scenes import compress_scene, convert_scene
from fault_harness.trees import timeless, tree


def refused(done: Outcome, by: Background) -> None:
    assert done.code == 2, done.stderr
    assert re.search(rf"process {by.pid}\b.*, for \d+\.\d minutes", done.stderr), done.stderr
    assert "to do:" in done.stderr


def test_two_runs_on_one_run_folder(props: Props) -> None:
    scene = compress_scene(props)
    release = props.root / "release"
    hold = {"mode": "hold", "at": 2, "match": "stages/06-", "release": str(release)}
    first = props.warm.start(scene.argv, root=props.root, fault=hold)
    assert "stages/06-" in first.reached()
    held = tree(props.root / "child.run")
    for more in ([], ["--overwrite"], ["data.block_size=16"]):
        refused(props.warm.run([*scene.argv, *more]), first)
    assert tree(props.root / "child.run") == held
    release.touch()
    done = first.join()
    assert done.code == 0, done.stderr
    release.unlink()
    assert tree(props.root) == scene.expected


def test_the_lock_of_a_killed_run_is_taken_over(props: Props) -> None:
    scene = compress_scene(props)
    hold = {"mode": "hold", "at": 2, "match": "stages/06-", "release": str(props.root / "never")}
    first = props.warm.start(scene.argv, root=props.root, fault=hold)
    first.reached()
    assert first.join(kill_after=0).code == -signal.SIGKILL
    assert json.loads((props.root / "child.run" / ".holder.json").read_text())["pid"] == first.pid
    scene.again("behind a dead holder")


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_two_converts_to_one_target(props: Props, more: list[str]) -> None:
    scene = convert_scene(props)
    release = props.root / "release"
    first = props.warm.start(scene.argv, root=props.root, fault={"mode": "hold", "at": 40, "release": str(release)})
    first.reached()
    refused(props.warm.run([*scene.argv, *more]), first)
    release.touch()
    assert first.join().code == 0
    release.unlink()
    assert tree(props.root) == scene.expected


def test_converts_that_start_at_once(props: Props) -> None:
    scene = convert_scene(props)
    for more in ([], ["--overwrite"]):
        ended = [victim.join() for victim in [props.warm.start([*scene.argv, *more]) for _ in range(4)]]
        codes = sorted(done.code for done in ended)
        assert codes[0] == 0, [done.stderr for done in ended]
        assert set(codes[1:]) <= ({0, 2} if more else {2}), [done.stderr for done in ended]
        assert not any(done.crashed for done in ended)
        assert tree(props.root) == scene.expected
        scene.clear()


MOMENTS = [("run.yaml", 1), ("stages/00-", 2), ("os.remove scores.json", 1), ("stages/06-", 4), ("stages/08-", 1)]


def test_a_search_while_a_compress_writes(warm: Warm, tmp_path: Path, model: Path, text: Path) -> None:
    """It finds what the run as it was would give, or as it will be, or says that somebody works on it: nothing in between."""
    run, release = tmp_path / "child.run", tmp_path / "release"
    search = ["search", run, "--budget", "params=0.7x", "--json"]
    before = compress_arguments(model, tmp_path / "child", text, "evaluation.enabled=false", "--overwrite")
    after = [*before, "pruning.ffn.sizes=[0.25,0.75]"]

    def compressed(argv: list[str]) -> Any:
        assert warm.run(argv).code == 0
        return timeless(json.loads(warm.run(search).stdout))

    new, old = compressed(after), compressed(before)
    assert new != old
    seen = set()
    for place, number in MOMENTS:
        assert warm.run(before).code == 0
        fault = {"mode": "hold", "at": number, "match": place, "release": str(release)}
        writer = warm.start(after, root=tmp_path, fault=fault)
        writer.reached()
        done = warm.run(search)
        if done.code == 0:
            answer = timeless(json.loads(done.stdout))
            assert answer in (old, new), place
            seen.add("old" if answer == old else "new")
        else:
            assert done.code == 2, done.stderr
            assert not done.crashed, done.stderr
            assert f"process {writer.pid}" in done.stderr, done.stderr
            seen.add("told")
        release.touch()
        assert writer.join().code == 0
        release.unlink()
    assert seen >= {"old", "new", "told"}, seen
