"""Pushes to a hub: what is whole or not there is a commit, and what is looked at is the hub's repository too."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .client import Outcome
from .scene import Props, Scene

REPOSITORY = "writer/child"
MODES = ("before", "torn", "after")
THEIRS = {"README.md": b"theirs", "old.safetensors": b"theirs" * 1000}
"""What a repository that is not new has on its main branch."""


@dataclass
class PushScene(Scene):
    """A push.

    Attributes:
        hub: what is pushed to.
        branch: the branch that is pushed to.
        there: what the repository's main branch has before; empty when there is no repository.
    """

    hub: Any = None
    branch: str = "main"
    there: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clear()
        super().__post_init__()

    def outcome(self) -> dict[str, str]:
        """What is left here, and what the branch shows."""
        shown = self.hub.repositories[REPOSITORY].files(self.branch)
        there = {f"hub: {name}": hashlib.sha256(content).hexdigest() for name, content in shown.items()}
        return super().outcome() | there

    def clear(self) -> None:
        super().clear()
        self.hub.repositories.clear()
        self.hub.objects.clear()
        if self.there:
            self.hub.add(REPOSITORY, self.there)

    def pushed(self, files: dict[str, bytes]) -> bool:
        """Whether these are all files of a push, and no others."""
        found = {f"hub: {name}": hashlib.sha256(content).hexdigest() for name, content in files.items()}
        wanted = {name: digest for name, digest in self.expected.items() if name.startswith("hub: ")}
        return found == wanted

    def look(self, where: str) -> None:
        """Every commit that was ever visible is what was there before, or all of the push."""
        super().look(where)
        if (repository := self.hub.repositories.get(REPOSITORY)) is None:
            return
        first = self.there or {".gitattributes": b""}
        for commit in list(repository.commits.values()):
            assert commit == first or self.pushed(commit), f"{where}: a commit with {sorted(commit)}"
        assert set(repository.branches) <= {"main", self.branch}, where
        if self.branch != "main":
            assert repository.files() == first, f"{where}: the main branch was changed"

    def repeat(self, where: str) -> Outcome:
        done = self.run()
        if done.code == 2 and "--overwrite" not in self.argv:
            # Killed behind the commit, a push is done, and does not replace what is there without being told.
            assert "files already on the branch" in done.stderr, f"{where}: {done.stderr}"
            files = self.hub.repositories[REPOSITORY].files(self.branch)
            assert self.pushed(files), f"{where}: refused over {sorted(files)}"
            done = self.run("--overwrite")
        self.look(where)
        return done

    def spread(self, count: int) -> list[tuple[int, str]]:
        """Every request in each mode, and as many changes of the file system as `count` says."""
        requests = [number for number, event in enumerate(self.events, 1) if event.startswith("request ")]
        files = [point for point in super().spread(count) if point[0] not in requests] if count else []
        return [*files, *((number, mode) for number in requests for mode in MODES)]


def push_scene(props: Props, child: Path, *more: str) -> PushScene:
    """A push of a child: to a new repository, or, where `more` names a branch or overwrites, to one that has files."""
    return PushScene(
        props.warm,
        ["push", str(child), REPOSITORY, "--license", "mit", *more],
        props.root,
        [child, child.with_name(child.name + ".run")],
        [],
        prepare={"name": "connect", "arguments": {"url": props.hub.url, "token": "hf_writer"}},
        hub=props.hub,
        branch=more[1] if "--revision" in more else "main",
        there=THEIRS if {"--revision", "--overwrite"} & set(more) else {},
    )
