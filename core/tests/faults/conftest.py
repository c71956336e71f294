"""The warm process, the tiny trained model, and a text."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_harness.client import Warm
from fault_harness.scene import Props

ASSET = Path(__file__).parents[1] / "assets" / "tiny-llama"


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    if sys.platform != "linux":
        pytest.skip("the harness needs /proc, pidfd and fork")
    process = Warm(ASSET, tmp_path_factory.mktemp("warm"))
    yield process
    process.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny trained model, which a test may damage."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        shutil.copy(ASSET / name, folder / name)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    chance = random.Random(0)
    words = ["tree", "house", "river", "stone", "walks", "sees", "under", "the", "a", "old", "green"]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(chance.choices(words, k=8)) + "." for _ in range(60)))
    return path


@pytest.fixture
def props(warm: Warm, tmp_path: Path, model: Path, text: Path, hub: Any) -> Props:
    root = tmp_path / "work"
    root.mkdir()
    return Props(warm, root, model, text, hub)


@pytest.fixture
def reached(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what a harness reached; `core/tests/conftest.py` prints it at the end."""
    return lambda line: record_property("reached", line)
