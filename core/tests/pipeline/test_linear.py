"""One linear map in place of a half: fitted in the one sweep, costed, scored, chosen, repaired, written and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import load_model
from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HookPlan, ScoreKey, sweep_importance
from anyblock.candidates.linear import LinearMapHook
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import RunConfig
from anyblock.errors import UsageError
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.pipeline.compress import compress
from anyblock.pruning.least_squares import RIDGES
from anyblock.run.run_folder import RunFolder
from anyblock.stages.adapt import read_adaptation, stage_of
from anyblock.stages.scores import read_scores
from safetensors.torch import load_file

SITES = {(layer, half): name for layer in range(3) for half, name in (("attention", "self_attn"), ("ffn", "mlp"))}
PLANS = [HookPlan(half, "linear", LinearMapHook, None, name, layers=[layer]) for (layer, half), name in SITES.items()]
ONLY_MAPS = {"attention": {"no_op": False, "linear": True}, "ffn": {"sizes": [], "no_op": False, "linear": True}}

REPAIR = stage_of("repair")


def config_of(settings: dict[str, Any], **changes: Any) -> RunConfig:
    return RunConfig.model_validate({**settings, **changes})


@pytest.fixture
def batches() -> Batches:
    return Batches(torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(2)), 2)


@pytest.fixture
def engine(teacher_dir: Path) -> LayerwiseModel:
    return LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"))


def test_the_map_is_the_ridge_regression_that_does_best_on_tokens_held_out(
    engine: LayerwiseModel, batches: Batches, teacher_dir: Path
) -> None:
    """Brute force on the stock model: each ridge's solution from all tokens at once, judged on every fourth batch."""
    maps = sweep_importance(engine, PLANS, batches)
    assert set(maps) == {ScoreKey(layer, half, "linear") for layer, half in SITES}
    stock = load_model(teacher_dir)
    for (layer, half), name in SITES.items():
        inputs: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []

        def note(_: Any, args: Any, kwargs: Any, output: Any, x: Any = inputs, y: Any = outputs) -> None:
            x.append(kwargs.get("hidden_states", args[0] if args else None).flatten(0, 1).double())
            y.append((output[0] if isinstance(output, tuple) else output).flatten(0, 1).double())

        handle = stock.model.layers[layer].get_submodule(name).register_forward_hook(note, with_kwargs=True)
        with torch.no_grad():
            for ids in batches:
                stock(ids)
        handle.remove()
        fitted = [torch.cat(part[:3] + part[4:7]) for part in (inputs, outputs)]
        judged = [torch.cat([part[3], part[7]]) for part in (inputs, outputs)]
        gram = fitted[0].T @ fitted[0]
        solutions = [
            torch.linalg.solve(gram + ridge * gram.diagonal().mean() * torch.eye(32), fitted[0].T @ fitted[1])
            for ridge in RIDGES
        ]
        best = min(solutions, key=lambda found: float((judged[1] - judged[0] @ found).square().sum()))
        found, expected = judged[0] @ maps[ScoreKey(layer, half, "linear")].double().T, judged[0] @ best
        assert (found - expected).norm() < 1e-3 * expected.norm()


def test_the_sweep_goes_on_where_it_stopped(engine: LayerwiseModel, batches: Batches, tmp_path: Path) -> None:
    whole = sweep_importance(engine, PLANS, batches, partial=tmp_path / "layers")
    (tmp_path / "layers" / "2.safetensors").unlink()
    again = sweep_importance(engine, PLANS, batches, partial=tmp_path / "layers")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_one_batch_is_too_few_to_judge_by(engine: LayerwiseModel) -> None:
    with pytest.raises(UsageError, match="too few to fit linear maps"):
        sweep_importance(engine, PLANS, Batches(torch.zeros(1, 8, dtype=torch.long), 4))


@pytest.mark.parametrize("method", ["none", "least_squares"])
def test_the_search_picks_maps_and_the_child_is_the_teacher_with_them(
    settings: dict[str, Any], ids: torch.Tensor, method: str
) -> None:
    pruning = {**ONLY_MAPS, "repair": {"method": method}}
    result = compress(config_of(settings, pruning=pruning, search={"budget": {"params": "0.7x"}, "refine_rounds": 1}))
    chosen = [(i, half) for i, half in SITES if result.child.block_configs[i].half(half).replace_with_linear]
    assert chosen
    assert "linear map" in (result.run / "report.md").read_text()
    child, stock = load_model(settings["output"]), load_model(settings["model"])
    assert result.summary.costs is not None
    assert sum(p.numel() for p in child.parameters()) == result.summary.costs["params"]
    maps = load_file(RunFolder(result.run).result("importance", "learned.safetensors"))
    written = {place: child.model.layers[place[0]].get_submodule(SITES[place]).linear.weight for place in chosen}
    if method == "none":
        assert all(torch.equal(written[i, half], maps[str(ScoreKey(i, half, "linear"))]) for i, half in chosen)
    else:
        done = read_adaptation(RunFolder.open(result.run), REPAIR)
        assert done is not None
        lines = {line["group"]: line for line in done.lines}
        assert set(lines) == {f"block_{i}_{half}" for i, half in chosen}
        assert all(line["error"] <= line["plain_error"] for line in lines.values())
    for (layer, half), weight in written.items():

        def mapped(*args: Any, weight: torch.Tensor = weight, bare: bool = half == "ffn", **kwargs: Any) -> Any:
            value = kwargs.get("hidden_states", args[0] if args else None) @ weight.T
            return value if bare else (value, None)

        stock.model.layers[layer].get_submodule(SITES[layer, half]).forward = mapped
    with torch.no_grad():
        torch.testing.assert_close(child(ids).logits, stock(ids).logits, rtol=1e-4, atol=1e-4)
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    cached = child.generate(ids, use_cache=True, **options)
    assert torch.equal(cached, child.generate(ids, use_cache=False, **options))


def test_a_map_hurts_less_than_the_removal_of_the_same_half(settings: dict[str, Any]) -> None:
    both = {"attention": {"linear": True}, "ffn": {"sizes": [], "linear": True}}
    result = compress(config_of(settings, pruning=both, scoring={"method": "exact"}))
    scores = read_scores(RunFolder.open(result.run))
    pairs = [(scores[f"block_{i}_{half}:linear"], scores[f"block_{i}_{half}:no_op"]) for i, half in SITES]
    assert all(linear < removed for linear, removed in pairs), pairs


HIDDEN = {"hidden_size": {"sizes": [24]}}, {"budget": {"params": "0.55x"}, "refine_rounds": 0}, 24
LATENCY = {}, {"budget": {"params": "0.7x", "latency": "1x"}, "refine_rounds": 0, "length": 32, "timing_rounds": 2}, 32


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("more", "search", "width"), [HIDDEN, LATENCY], ids=["hidden size", "latency"])
def test_it_works_beside(
    settings: dict[str, Any], ids: torch.Tensor, more: dict[str, Any], search: dict[str, Any], width: int
) -> None:
    result = compress(config_of(settings, pruning={**ONLY_MAPS, **more}, search=search))
    blocks = result.child.block_configs
    linear = [(i, half) for i, half in SITES if blocks[i].half(half).replace_with_linear]
    assert linear
    child = load_model(settings["output"])
    layer, half = linear[0]
    assert child.model.layers[layer].get_submodule(SITES[layer, half]).linear.weight.shape == (width, width)
    assert torch.isfinite(child(ids).logits).all()


def test_a_child_with_maps_is_compressed_again(settings: dict[str, Any], tmp_path: Path) -> None:
    first = compress(config_of(settings, pruning=ONLY_MAPS, search={"budget": {"params": "0.7x"}, "refine_rounds": 0}))
    before = first.child.block_configs
    again = {**settings, "model": settings["output"], "output": str(tmp_path / "again")}
    second = compress(config_of(again, search={"budget": {"params": "0.8x"}, "refine_rounds": 0}))
    linear = [(i, half) for i, half in SITES if before[i].half(half).replace_with_linear]
    for i, half in linear:
        now = getattr(second.child.block_configs[i], half)
        assert now.replace_with_linear or now.no_op
    assert torch.isfinite(load_model(second.child.path)(torch.ones(1, 4, dtype=torch.long)).logits).all()
