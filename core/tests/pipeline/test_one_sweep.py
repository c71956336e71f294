"""All that a run asks for comes from one pass over the calibration text, and candidates are never written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import RunConfig
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.pipeline.compress import compress
from anyblock.progress import Advance
from anyblock.run.run_folder import RunFolder
from anyblock.stages import child as child_stage
from anyblock.stages import importance
from safetensors import safe_open

ALL = {
    "ffn": {"sizes": [0.25, 0.5], "linear": True},
    "attention": {"linear": True},
    "kv_heads": {"sizes": [1]},
    "query_groups": {"sizes": [1]},
    "repair": {"method": "none"},
}


class Tasks:
    """A progress that keeps what is started, and with how many steps."""

    def __init__(self) -> None:
        self.totals: dict[str, list[int]] = {}

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator[Advance]:
        self.totals.setdefault(description, []).append(total)
        yield lambda _: None

    def note(self, message: str) -> None:
        pass


def test_any_set_of_kinds_shares_one_pass(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch goes through every layer once while hooks of three kinds and the statistics of six maps are filled."""
    runs = []
    sweeping: list[bool] = []
    original = LayerwiseModel.run

    def counted(self: LayerwiseModel, index: int, *args: Any, **kwargs: Any) -> Any:
        if sweeping:
            runs.append(index)
        return original(self, index, *args, **kwargs)

    whole = importance.sweep_importance

    def sweep(*args: Any, **kwargs: Any) -> Any:
        sweeping.append(True)
        try:
            return whole(*args, **kwargs)
        finally:
            sweeping.clear()

    monkeypatch.setattr(LayerwiseModel, "run", counted)
    monkeypatch.setattr(importance, "sweep_importance", sweep)
    tasks = Tasks()
    result = compress(RunConfig.model_validate({**settings, "pruning": ALL}), progress=tasks)
    assert tasks.totals["Calibrating"] == [512 * 3]
    assert sorted(runs) == sorted(list(range(3)) * 4), "4 batches, 3 layers"
    kinds = {key.kind for key in importance.read_importance(RunFolder(result.run))}
    assert kinds == {"ffn_intermediate", "kv_heads", "query_groups"}


def test_no_candidate_is_written_before_the_child(
    settings: dict[str, Any], teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the run folder then are scores a unit and the fitted maps, and no tensor of the model."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child_stage, "realize", stop)
    changed = {**settings, "model": str(teacher_dir), "pruning": ALL}
    with suppress(KeyboardInterrupt):
        compress(RunConfig.model_validate(changed))
    found = {}
    for path in Path(settings["output"] + ".run").rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping
    own = {name for names in SubblockCheckpoint.open(teacher_dir).groups.values() for name in names}
    assert not found.keys() & own
    assert {tuple(shape) for name, shape in found.items() if "|" in name} == {(48,), (2,), (32, 32)}
    assert {name for name in found if "|" not in name} <= {"calibration", "scoring", "evaluation"}
