"""A run that holds one layer at a time and spools all hidden states leaves, byte for byte, what a run in memory leaves."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import RunConfig
from anyblock.errors import ConfigError
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.spool import Spool
from anyblock.pipeline.compress import CompressResult, compress
from anyblock.run.memory import MemoryPlan, plan_memory, weight_sizes
from anyblock.run.run_folder import RunFolder

TIMES = {"seconds", "tokens_per_second", "peak_memory"}


def timeless(data: Any) -> Any:
    if isinstance(data, dict):
        # A finished stage states the hashes of its files, some of which hold times.
        named = {key: sorted(value) if key == "files" else timeless(value) for key, value in data.items()}
        return {key: value for key, value in named.items() if key not in TIMES}
    return [timeless(value) for value in data] if isinstance(data, list) else data


def content(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".json":
        data = json.dumps(timeless(json.loads(data)), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def left_by(result: CompressResult) -> dict[str, str]:
    """Every file of the child and of the stages; what tells of times and of the memory taken is left out."""
    return {
        f"{folder.name}/{path.relative_to(folder)}": content(path)
        for folder in (result.child.path, result.run / "stages")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Watch:
    """Counts what is held: layers with weights in every engine, and tensors that a spool kept in memory or in files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layers = self.files = self.in_memory = 0
        use, keep = LayerwiseModel.use, Spool._keep

        def watched_use(engine: LayerwiseModel, index: int) -> torch.nn.Module:
            layer = use(engine, index)
            held = [any(not p.is_meta for p in each.parameters()) for each in engine.layers]
            self.layers = max(self.layers, sum(held))
            return layer

        def watched_keep(spool: Spool, tensor: torch.Tensor) -> Any:
            kept = keep(spool, tensor)
            if isinstance(kept, torch.Tensor):
                self.in_memory += bool(tensor.numel())
            else:
                self.files += 1
            return kept

        monkeypatch.setattr(LayerwiseModel, "use", watched_use)
        monkeypatch.setattr(Spool, "_keep", watched_keep)


VARIANTS: dict[str, dict[str, Any]] = {
    "estimated": {"scoring": {"exact_sample": 4}},
    "exact": {"scoring": {"method": "exact"}},
    "cosine": {"scoring": {"metric": "cosine"}},
    "lm_loss": {"scoring": {"metric": "lm_loss"}},
    "mse": {"scoring": {"metric": "mse"}},
    "narrower": {
        "pruning": {"ffn": {"sizes": [0.5]}, "kv_heads": {"sizes": [1]}, "hidden_size": {"sizes": [24]}},
        "search": {"budget": {"params": "0.6x"}, "refine_rounds": 1},
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_stage_leaves_the_same(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    settings = {**copy.deepcopy(settings), **VARIANTS[variant]}
    whole = compress(RunConfig.model_validate({**settings, "output": str(tmp_path / "whole" / "child")}))
    watch = Watch(monkeypatch)
    # The limit is below what the process has taken already, so that there is room for nothing.
    settings |= {"memory": {"limit": "1MiB"}, "output": str(tmp_path / "little" / "child")}
    little = compress(RunConfig.model_validate(settings))
    assert watch.layers == 1
    assert watch.files > 0
    assert watch.in_memory == 0
    assert left_by(little) == left_by(whole)
    assert not list(little.run.rglob(".spool"))
    if variant == "estimated":
        ran = {stage.name for stage in little.summary.stages if not stage.reused}
        assert ran >= {"importance", "scores", "refine", "repair", "child", "evaluation"}


def test_a_run_goes_on_with_another_amount_of_memory(settings: dict[str, Any]) -> None:
    compress(RunConfig.model_validate(settings))
    again = compress(RunConfig.model_validate({**settings, "memory": {"max_resident": 1}}))
    assert all(stage.reused for stage in again.summary.stages)


def test_times_are_added_up_where_the_teacher_cannot_be_held(settings: dict[str, Any]) -> None:
    settings |= {"memory": {"max_resident": 1}, "evaluation": {"enabled": False}}
    settings["search"] = {
        "budget": {"latency": "0.9x"},
        "length": 16,
        "generated": 4,
        "timing_rounds": 1,
        "refine_rounds": 0,
    }
    result = compress(RunConfig.model_validate(settings))
    costs, teacher = result.summary.costs or {}, result.summary.teacher_costs or {}
    assert 0 < costs["latency"] <= 0.9 * teacher["latency"]
    assert not RunFolder(result.run).folder("measured-check:latency").exists()


@pytest.mark.parametrize("limit", ["0.5x", "a lot", ">=3GiB", -1])
def test_a_limit_that_is_no_quantity_is_refused(settings: dict[str, Any], limit: object) -> None:
    with pytest.raises((ConfigError, ValueError), match="limit"):
        RunConfig.model_validate({**settings, "memory": {"limit": limit}})


def test_the_plan_holds_what_there_is_room_for(teacher_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, outside = weight_sizes(SubblockCheckpoint.open(teacher_dir), torch.float32)
    model = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"))
    assert sum(layers.values()) + outside == 4 * sum(p.numel() for p in model.model.parameters())
    monkeypatch.setattr("anyblock.run.memory.resident", lambda: 1000)
    monkeypatch.setattr("anyblock.run.memory._LIBRARIES", 0)
    cpu = torch.device("cpu")
    sizes = dict.fromkeys(range(10), 100)
    plans = {limit: plan_memory(sizes, 50, device=cpu, limit=limit + 1000) for limit in (1, 1000, 2000, 5000)}
    assert {limit: plan.max_resident for limit, plan in plans.items()} == {1: 1, 1000: 2, 2000: 8, 5000: None}
    assert [plan.states for plan in plans.values()] == [0, 100, 200, 500]
    assert plan_memory(sizes, 50, device=cpu, max_resident=4).max_resident == 4
    assert plan_memory(sizes, 50, device=cpu, max_resident=10).whole


def test_layers_are_spread_where_one_device_is_too_small_and_several_are_not() -> None:
    first, *others = devices = [torch.device("meta", index) for index in range(3)]  # all that `limit` says is free
    sizes = dict.fromkeys(range(10), 100)

    def plan(limit: int, **more: Any) -> MemoryPlan:
        return plan_memory(sizes, 50, device=first, others=others, limit=limit, **more)

    alone, spread, too_small = plan(5000), plan(1500), plan(600)
    assert (alone.whole, alone.room) == (True, None)
    assert (spread.whole, spread.max_resident) == (False, None)
    assert spread.room == {devices[0]: 500, devices[1]: 600, devices[2]: 600}
    assert (too_small.room, too_small.max_resident) == (None, 1)
    assert list(plan(5000, spread=True).room or ()) == devices
    assert plan(1500, max_resident=2).room is None
