"""Qwen3-VL with its vision tower: it is kept as it is, and images are read as by the stock model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config.registry import NameRegistry
from anyblock.contract.importance_hook import HookContext
from anyblock.errors import CheckpointError
from anyblock.importance.expert_removal import MoERemoveExpertsHook
from anyblock.modeling.skeleton import model_class
from anyblock.realize.realize import realize
from anyblock_conformance.tiny import randomise, save_tiny
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

FAMILIES = ["qwen3_vl", "qwen3_vl_moe"]
IMAGE, VIDEO, START, END = 124, 125, 126, 127


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Any:
    return get_family(request.param)


@pytest.fixture
def source(family: Any, tmp_path: Path) -> Path:
    return save_tiny(family.conformance_config(), tmp_path / "source")


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """A prompt with an image of four by six patches, two by three tokens, in it."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 120, (1, 14), generator=generator)
    ids[0, 2:10] = torch.tensor([START, *[IMAGE] * 6, END])
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": torch.randn(24, 3 * 2 * 4 * 4, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 6]]),
    }


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def test_images_are_seen_as_by_the_stock_model(family: Any, source: Path, inputs: dict[str, Any], tmp_path: Path):
    stock = AutoModelForImageTextToText.from_pretrained(source).eval()
    expected = logits(stock, inputs)
    other = logits(stock, {**inputs, "pixel_values": -inputs["pixel_values"]})
    assert not torch.allclose(other, expected, atol=1e-3)
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    loaded = load_model(teacher.path)
    torch.testing.assert_close(logits(loaded, inputs), expected)
    rotary = {name for name, _ in loaded.named_buffers() if name.endswith("inv_freq")}
    assert {name.split(".")[1] for name in rotary} == {"visual", "language_model"}
    assert all(torch.equal(loaded.get_buffer(name), stock.get_buffer(name)) for name in rotary)
    vision = teacher.load("vision_encoding")
    original = load_file(source / "model.safetensors")
    assert vision.keys() == {name for name in original if name.startswith("model.visual.")}
    assert all(torch.equal(tensor, original[name]) for name, tensor in vision.items())


@pytest.mark.parametrize("half", ["attention", "ffn"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_child_sees_images_where_features_are_added_behind_its_layers(
    family: Any, source: Path, inputs: dict[str, Any], tmp_path: Path, layer: int, half: str
) -> None:
    stock = AutoModelForImageTextToText.from_pretrained(source).eval()
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    block = teacher.block_configs[layer]
    block = block.with_attention(no_op=True) if half == "attention" else block.with_ffn(no_op=True)
    weights = CandidateWeights(teacher, family, family.language_model_config(stock.config), {})
    child = realize(teacher, [Candidate(layer, half, NO_OP, 0, block)], weights, tmp_path / "child")
    with torch.no_grad():
        for parameter in getattr(
            stock.model.language_model.layers[layer], {"attention": "self_attn"}.get(half, "mlp")
        ).parameters():
            parameter.zero_()
    torch.testing.assert_close(logits(load_model(child), inputs), logits(stock, inputs))


def test_a_config_has_no_number_of_layers_outside_the_text_config(family: Any, source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    assert "num_hidden_layers" not in config
    assert config["text_config"]["num_hidden_layers"] == 3


def test_published_files_hold_experts_the_other_way_round(inputs: dict[str, Any], tmp_path: Path) -> None:
    """transformers reads both; a square tensor does not tell which way it lies, and its neighbour does."""
    family = get_family("qwen3_vl_moe")
    source = save_tiny(family.conformance_config(), tmp_path / "source")
    expected = logits(AutoModelForImageTextToText.from_pretrained(source).eval(), inputs)
    tensors = load_file(source / "model.safetensors")
    experts = {name for name in tensors if ".experts." in name}
    assert {tensors[name].shape[1:] for name in experts} == {(32, 32), (32, 16)}
    turned = {n: t.transpose(1, 2).contiguous() if n in experts else t for n, t in tensors.items()}
    published = tmp_path / "published"
    published.mkdir()
    (published / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file(turned, published / "model.safetensors", {"format": "pt"})
    for folder in (source, published):
        teacher = SubblockCheckpoint.open(convert_model(folder, tmp_path / f"{folder.name}-converted"))
        stored = {name: tensor for group in teacher.groups for name, tensor in teacher.load(group).items()}
        assert stored.keys() == tensors.keys()
        assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())
        torch.testing.assert_close(logits(load_model(teacher.path), inputs), expected)


def test_experts_that_nothing_tells_the_direction_of_are_refused() -> None:
    family = get_family("qwen3_vl_moe")
    config, layer = family.conformance_config(), "model.language_model.layers.1.mlp.experts"
    square = {f"{layer}.gate_up_proj": torch.zeros(4, 32, 32), f"{layer}.down_proj": torch.zeros(4, 32, 32)}
    with pytest.raises(CheckpointError, match="down_proj has the shape"):
        family.dequantize_tensor(f"{layer}.down_proj", square, config)


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_its_own_hook_for_experts_agrees_with_the_one_that_runs_the_model(metric: str) -> None:
    family = get_family("qwen3_vl_moe")
    config = family.conformance_config()
    model = model_class(config)._from_config(config, dtype=torch.float32).eval()
    randomise(model)
    moe = model.model.language_model.layers[1].mlp
    context = HookContext(config.text_config, family.create_block_configs(config)[1], 1, 2)
    name = "Qwen3VLRemoveExpertsIndependentHook"
    own = family.importance_hooks()[name](moe, context, metric=metric)
    generic = MoERemoveExpertsHook(moe, context, metric=metric)
    for seed in range(2):
        x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(seed))
        for hook in (own, generic):
            hook(moe, (x,), {}, moe(x))
    assert own.scores().count_nonzero() == 4
    torch.testing.assert_close(own.scores(), generic.scores(), rtol=1e-4, atol=1e-6)
    assert NameRegistry.for_family(family).hook(name) == name
