"""A run that takes seconds: the tiny Llama, a few hundred tokens, few candidates."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.measuring import timing


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


class WorkClock:
    """Moves by one ms for every thousand multiplications of a linear layer, whoever runs it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.reads = 0

    def perf_counter(self) -> float:
        self.reads += 1
        return self.seconds

    def work(self, module: torch.nn.Module, args: tuple[Any, ...], _: Any) -> None:
        if isinstance(module, torch.nn.Linear):
            tokens = args[0].numel() // args[0].shape[-1]
            self.seconds += tokens * module.weight.numel() * 1e-6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkClock]:
    """Times that depend on the work alone."""
    clock = WorkClock()
    monkeypatch.setattr(timing, "time", clock)
    handle = torch.nn.modules.module.register_module_forward_hook(clock.work)
    yield clock
    handle.remove()
