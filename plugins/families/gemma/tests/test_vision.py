"""Gemma 3 with its vision tower: the tower is kept as it is, and images are read as by the stock model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.family import get_family
from anyblock.realize.realize import realize
from anyblock_conformance.tiny import save_tiny
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForConditionalGeneration

FAMILY = get_family("gemma3")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_tiny(FAMILY.conformance_config(), tmp_path / "source")


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """A prompt with one image of four tokens in it."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 120, (1, 12), generator=generator)
    ids[0, 2:8] = torch.tensor([126, 125, 125, 125, 125, 127])
    return {
        "input_ids": ids,
        "token_type_ids": (ids == 125).long(),
        "pixel_values": torch.randn(1, 3, 28, 28, generator=generator),
    }


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def stored(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = SubblockCheckpoint.open(path)
    return {name: tensor for group in checkpoint.groups for name, tensor in checkpoint.load(group).items()}


def test_images_are_seen_as_by_the_stock_model(source: Path, inputs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    stock = Gemma3ForConditionalGeneration.from_pretrained(source).eval()
    expected = logits(stock, inputs)
    other = logits(stock, {**inputs, "pixel_values": -inputs["pixel_values"]})
    assert not torch.allclose(other, expected, atol=1e-3)
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    torch.testing.assert_close(logits(load_model(teacher.path), inputs), expected)
    # Without the last layer's attention the image still reaches the answer, through the layers before.
    block = teacher.block_configs[2].with_attention(no_op=True)
    weights = CandidateWeights(teacher, FAMILY, FAMILY.language_model_config(stock.config), {})
    child = realize(teacher, [Candidate(2, "attention", NO_OP, 0, block)], weights, tmp_path / "child")
    with torch.no_grad():
        stock.model.language_model.layers[2].self_attn.o_proj.weight.zero_()
        stock.model.language_model.layers[2].self_attn.o_proj.bias.zero_()
    torch.testing.assert_close(logits(load_model(child), inputs), logits(stock, inputs))
    assert SubblockCheckpoint.open(child).groups["vision_encoding"] == teacher.groups["vision_encoding"]


def test_files_with_the_names_of_modules_become_like_published_ones(source: Path, tmp_path: Path) -> None:
    """transformers has written both, and reads both."""
    published = stored(convert_model(source, tmp_path / "published"))
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in published
    renamed = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        new = name.replace("language_model.model.", "model.language_model.")
        renamed[new if new != name else f"model.{name}"] = tensor
    assert {name.split(".")[1] for name in renamed} == {"language_model", "vision_tower", "multi_modal_projector"}
    folder = tmp_path / "renamed"
    folder.mkdir()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    found = stored(convert_model(folder, tmp_path / "converted"))
    assert found.keys() == published.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in published.items())
    assert FAMILY.convert_weight_name("lm_head.weight") == "language_model.lm_head.weight"
