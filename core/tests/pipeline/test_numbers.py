"""Numbers that lie: NaN and infinities are refused by name; silence, ties and threads have a stated outcome (docs/numbers.md)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.config import RunConfig
from anyblock.errors import CheckpointError, ExecutionError, InputError
from anyblock.modeling.load import load_model
from anyblock.pipeline.compress import compress
from anyblock.pruning.ordering import best_first
from anyblock.run.run_folder import RunFolder
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, torch.Tensor]], object]
GATE, DOWN = "model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def damaged(llama_dir: Path, tmp_path: Path) -> Callable[[Change], str]:
    def damage(change: Change) -> str:
        folder = tmp_path / "damaged"
        shutil.copytree(llama_dir, folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return str(folder)

    return damage


def run(settings: dict[str, Any], **changes: Any) -> Path:
    return compress(RunConfig.model_validate({**settings, **changes}), overwrite=True).run


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def scores_of(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(RunFolder(run).result("scores", "scores.json").read_text())
    return found


@pytest.mark.parametrize(
    "name", [GATE, "model.embed_tokens.weight", "lm_head.weight", "model.layers.2.self_attn.q_proj.bias"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number(
    settings: dict[str, Any], damaged: Callable[[Change], str], name: str, value: float
) -> None:
    model = damaged(lambda tensors: tensors[name].view(-1)[7:9].fill_(value))
    with pytest.raises(CheckpointError, match=rf"tensor {name} holds 2 of [\d,]+ values that are NaN or infinite"):
        run(settings, model=model)
    assert not Path(settings["output"]).exists()


def test_a_weight_that_float16_cannot_hold(settings: dict[str, Any], damaged: Callable[[Change], str]) -> None:
    model = damaged(lambda tensors: tensors[DOWN].view(-1)[7].fill_(1e5))
    with pytest.raises(CheckpointError, match=rf"tensor {DOWN} holds 1e\+05, and torch.float16 ends at 6.55e\+04"):
        run(settings, model=model, dtype="float16")
    run(settings, model=model, dtype="float32")


def test_a_teacher_that_overflows_in_float16(settings: dict[str, Any], damaged: Callable[[Change], str]) -> None:
    def loud(tensors: dict[str, torch.Tensor]) -> None:
        for name in (DOWN, DOWN.replace("down", "up")):
            tensors[name] *= 3e3

    model = damaged(loud)
    with pytest.raises(ExecutionError, match=r"layer 1 .*float16.*NaN or infinite") as raised:
        run(settings, model=model, dtype="float16")
    assert "float32" in raised.value.hint
    run(settings, model=model, dtype="float32")


def test_activations_that_are_not_finite(settings: dict[str, Any], damaged: Callable[[Change], str]) -> None:
    def overflows(tensors: dict[str, torch.Tensor]) -> None:
        for name in (DOWN, DOWN.replace("down", "up")):
            tensors[name] *= 1e30  # finite, every one

    model = damaged(overflows)
    with pytest.raises(ExecutionError, match="the output of layer 1 in float32"):
        run(settings, model=model)


def test_importance_that_is_not_finite(settings: dict[str, Any], damaged: Callable[[Change], str]) -> None:
    """Inside a layer, where a product of gate and up that overflows meets weights of 0 in the output projection."""

    def silenced(tensors: dict[str, torch.Tensor]) -> None:
        tensors[GATE] *= 1e30
        tensors[GATE.replace("gate", "up")] *= 1e30

    with pytest.raises(ExecutionError, match="layer 1"):
        run(settings, model=damaged(silenced))


@pytest.fixture
def brink(settings: dict[str, Any], brink_dir: Path) -> dict[str, Any]:
    """A run in float16 that can remove attentions and a quarter of each ffn."""
    pruning = {"ffn": {"no_op": False, "sizes": [0.75]}, "kv_heads": None}
    return {**settings, "model": str(brink_dir), "dtype": "float16", "pruning": pruning}


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_child_that_overflows_although_each_candidate_does_not(brink: dict[str, Any], rounds: int) -> None:
    brink["search"] = {"budget": {"params": "0.6x"}, "refine_rounds": rounds}  # without all three attentions
    with pytest.raises(ExecutionError, match="the child gives NaN or infinite numbers in float16") as raised:
        run(brink, evaluation={"enabled": False})
    assert "float32" in raised.value.hint
    assert not Path(brink["output"]).exists()


def test_refinement_keeps_away_from_children_that_overflow(brink: dict[str, Any]) -> None:
    brink["search"] = {"budget": {"params": "0.8x"}, "refine_rounds": 2}
    path = run(brink)
    choices = json.loads(RunFolder(path).result("refine", "refinement.json").read_text())["choices"]
    assert [choices[f"block_{layer}_attention"] for layer in range(3)].count("no_op") == 1


@pytest.mark.parametrize("repair", ["least_squares", "none"])
def test_a_layer_of_zeros(settings: dict[str, Any], damaged: Callable[[Change], str], repair: str) -> None:
    """It is not a fault: nothing is lost with it, and its units tie."""

    def silent(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            if name.startswith("model.layers.1.") and "norm" not in name:
                tensors[name].zero_()

    settings["pruning"] |= {"repair": {"method": repair}}
    path = run(settings, model=damaged(silent))
    assert orders(path, 1) == [list(range(48))] * 2
    scores = scores_of(path)
    silent_scores = [score for key, score in scores.items() if key.startswith("block_1_")]
    assert silent_scores == pytest.approx([0] * len(silent_scores), abs=1e-6)
    child = load_model(settings["output"])
    assert all(parameter.isfinite().all() for parameter in child.parameters())


def test_of_dead_channels_the_lower_index_is_kept(settings: dict[str, Any], damaged: Callable[[Change], str]) -> None:
    dead = [3, 4, 11, 20, 21, 22, 40, 47]

    def kill(tensors: dict[str, torch.Tensor]) -> None:
        for part in ("gate", "up"):
            for kind in ("weight", "bias"):
                tensors[GATE.replace("gate_proj.weight", f"{part}_proj.{kind}")][dead] = 0

    assert [order[-len(dead) :] for order in orders(run(settings, model=damaged(kill)), 1)] == [dead] * 2


def orders(path: Path, layer: int) -> list[list[int]]:
    """The order of ffn channels, most important first, by every hook that scored them."""
    found = load_file(RunFolder(path).result("importance", "scores.safetensors"))
    return [
        best_first(values).tolist() for name, values in found.items() if name.startswith(f"{layer}|ffn_intermediate|")
    ]


def test_a_text_of_one_token(settings: dict[str, Any], tmp_path: Path) -> None:
    text = tmp_path / "dull.txt"
    text.write_text(("a" * 99 + "\n") * 40)
    with pytest.raises(InputError, match="tokens of the calibration text are the token 66"):
        run(settings, data={**settings["data"], "path": str(text)})
    assert not Path(f"{settings['output']}.run").exists()
    text.write_text("the river\n" * 400)
    run(settings, data={**settings["data"], "path": str(text)})


def test_the_same_seed_gives_the_same_bytes(settings: dict[str, Any], tmp_path: Path) -> None:
    children = []
    for name in ("one", "two"):
        run(settings, output=str(tmp_path / name))
        children.append(digest(tmp_path / name))
    assert children[0] == children[1]


def test_the_number_of_threads_changes_the_last_digits_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["data"] |= {"block_size": 128, "batch_size": 4, "calibration_tokens": 1024, "scoring_tokens": 256}
    settings["pruning"], settings["search"]["refine_rounds"] = {"ffn": {"sizes": [0.5]}}, 0
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            path = run(settings, output=str(tmp_path / str(count)), evaluation={"enabled": False})
            found.append((scores_of(path), load_model(tmp_path / str(count)).state_dict()))
    finally:
        torch.set_num_threads(threads)
    (one, first), (two, second) = found
    assert two == pytest.approx(one, rel=1e-3, abs=1e-7)
    assert second.keys() == first.keys()
    for name, tensor in second.items():
        assert float((tensor - first[name]).norm()) <= 1e-3 * float(first[name].norm()), name
