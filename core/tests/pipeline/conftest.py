"""A run that takes seconds: the tiny Llama, a few hundred tokens, few candidates."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random words, one sentence a line."""
    chance = random.Random(0)
    words = ["tree", "house", "river", "stone", "walks", "sees", "under", "the", "a", "old", "green"]
    lines = [" ".join(chance.choices(words, k=8)) + "." for _ in range(60)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def settings(llama_dir: Path, text_file: Path, tmp_path: Path) -> dict[str, Any]:
    """The run's configuration as a mapping, for tests to change."""
    return {
        "model": str(llama_dir),
        "output": str(tmp_path / "child"),
        "data": {
            "path": str(text_file),
            "block_size": 32,
            "calibration_tokens": 512,
            "scoring_tokens": 128,
            "evaluation_tokens": 128,
            "batch_size": 4,
        },
        "pruning": {"ffn": {"sizes": [0.25, 0.5]}},
        "search": {"budget": {"params": "0.75x"}, "refine_rounds": 2},
        "device": "cpu",
    }
