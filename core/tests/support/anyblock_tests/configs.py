"""Fixtures of tests of configurations; a conftest imports those that it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from anyblock.config.registry import NameRegistry

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file below the test's folder: `write("model: a", "run.yaml")`."""

    def written(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    return written


@pytest.fixture(scope="session")
def registry() -> NameRegistry:
    """The names of core and of the dense mixins, for the family `llama`."""
    core = NameRegistry.for_family(None)
    return NameRegistry(core.hooks, core.mixins, "llama", core.source, core.dialects)


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def notes() -> Notes:
    return Notes()
