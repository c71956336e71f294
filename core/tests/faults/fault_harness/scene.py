"""A command, its inputs, and what it leaves when nobody kills it: the yardstick of every kill."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .client import Outcome, Warm
from .trees import finished_stages, tree


@dataclass(frozen=True)
class Props:
    """What a scene is made of.

    Attributes:
        warm: runs the command.
        root: an empty folder.
        model: a trained model.
        text: a text file.
        hub: a running hub without repositories (`anyblock_tests/hub.py`).
    """

    warm: Warm
    root: Path
    model: Path
    text: Path
    hub: Any


@dataclass
class Scene:
    """A command in a folder of its own.

    Attributes:
        warm: runs it.
        argv: the command line.
        root: where its inputs are and its output will be.
        inputs: what must never change.
        whole: outputs that appear complete or not at all.
        prepare: a function of `calls` that every victim runs first.
        places: how often a victim was killed where.
    """

    warm: Warm
    argv: list[str]
    root: Path
    inputs: list[Path]
    whole: list[str]
    prepare: dict[str, Any] | None = None
    places: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Run the command once to its end, and note its changes of the file system and what it leaves."""
        self.before = [tree(path) for path in self.inputs]
        done = self.run(fault={"mode": "record", "at": 0})
        assert done.code == 0, done.stderr
        self.events: list[str] = done.told[-1]
        self.seconds = done.seconds
        self.expected = self.outcome()
        self.stages = finished_stages(self.root / "child.run")
        self.clear()

    def run(self, *more: str, **request: Any) -> Outcome:
        """Run the command; see `Warm.run`."""
        return self.warm.run([*self.argv, *more], root=self.root, prepare=self.prepare, **request)

    def outcome(self) -> dict[str, str]:
        """What the command has left, by name."""
        return tree(self.root)

    def clear(self) -> None:
        for path in self.root.iterdir():
            if path not in self.inputs and path.is_dir():
                shutil.rmtree(path)

    def kill(self, number: int, mode: str, match: str = "", *, again: bool = True) -> None:
        """Kill at a point, look, run again, and look again."""
        done = self.run(fault={"mode": mode, "at": number, "match": match})
        assert done.code == -signal.SIGKILL, f"{mode} {match} {number}: {done.code} {done.stderr}"
        where = str(done.told[-1])
        self.places[place(where)] += 1
        self.look(f"{mode} {number} {where}")
        if again:
            self.again(f"{mode} {number} {where}")

    def kill_at_random(self, chance: random.Random) -> bool:
        """Kill after a random time; False when it was done before."""
        done = self.run(kill_after=chance.uniform(0, self.seconds))
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

    def repeat(self, where: str) -> Outcome:
        """Run the command after a kill."""
        # Killed behind the last rename, a command is done, and does not replace what is there without being told.
        return self.run(*(["--overwrite"] if (self.root / "out").exists() else []))

    def again(self, where: str) -> None:
        """The same command ends as if nothing had happened, and leaves nothing else."""
        done = self.repeat(where)
        assert done.code == 0, f"{where}: {done.stderr}"
        found = self.outcome()
        different = {name for name in found.keys() | self.expected.keys() if found.get(name) != self.expected.get(name)}
        assert not different, f"{where}: {sorted(different)}"
        assert [tree(path) for path in self.inputs] == self.before, f"{where}: an input was changed"
        self.clear()

    def spread(self, count: int) -> list[tuple[int, str]]:
        """Points evenly spread over the run, in both modes by turns."""
        numbers = sorted({1 + index * len(self.events) // count for index in range(count)} | {len(self.events)})
        return [(number, ("before", "torn")[index % 2]) for index, number in enumerate(numbers)]


def place(event: str) -> str:
    """The stage of a path, or the part of the run that it belongs to; of a request, its kind."""
    if event.startswith("request "):
        kinds = re.findall("/(create|validate-yaml|preupload|batch|commit|branch|revision|lfs)(?=/|$)", event)
        return f"request {kinds[-1] if kinds else 'model'}"
    if stage := re.search(r"stages/([^/]+)", event):
        return f"stage {stage[1]}"
    named = re.search(r"\.run/\.?(teacher|narrowed)", event)
    return named[1] if named else "output" if ".run" not in event else "run folder"
