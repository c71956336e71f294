"""Qwen3.5 with its vision tower, which is kept as it is, and its experts as they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.realize.realize import realize
from anyblock_conformance.tiny import save_tiny
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

IMAGE, START, END = 124, 126, 127


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


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe"])
def test_images_are_seen_as_by_the_stock_model(name: str, inputs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    family = get_family(name)
    source = save_tiny(family.conformance_config(), tmp_path / "source")
    stock = AutoModelForImageTextToText.from_pretrained(source).eval()
    expected = logits(stock, inputs)
    other = logits(stock, {**inputs, "pixel_values": -inputs["pixel_values"]})
    assert not torch.allclose(other, expected, atol=1e-3)
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    torch.testing.assert_close(logits(load_model(teacher.path), inputs), expected)
    # Without the last layer's delta net the image still reaches the answer, through the layers before.
    block = teacher.block_configs[2].with_attention(no_op=True)
    weights = CandidateWeights(teacher, family, family.language_model_config(stock.config), {})
    child = realize(teacher, [Candidate(2, "attention", NO_OP, 0, block)], weights, tmp_path / "child")
    with torch.no_grad():
        stock.model.language_model.layers[2].linear_attn.out_proj.weight.zero_()
    torch.testing.assert_close(logits(load_model(child), inputs), logits(stock, inputs))
    vision, original = teacher.load("vision_encoding"), load_file(source / "model.safetensors")
    assert vision.keys() == {name for name in original if name.startswith("model.visual.")}
    assert SubblockCheckpoint.open(child).groups["vision_encoding"] == teacher.groups["vision_encoding"]


def test_published_files_hold_all_experts_of_a_layer_in_two_tensors(tmp_path: Path) -> None:
    """transformers reads both forms; a converted checkpoint has that in which it writes."""
    source = save_tiny(get_family("qwen3_5_moe").conformance_config(), tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    fused = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for layer in range(3):
        prefix = f"model.language_model.layers.{layer}.mlp.experts"
        rows = {
            linear: torch.stack([tensors[f"{prefix}.{index}.{linear}.weight"] for index in range(4)])
            for linear in ("gate_proj", "up_proj", "down_proj")
        }
        fused[f"{prefix}.gate_up_proj"] = torch.cat([rows["gate_proj"], rows["up_proj"]], dim=1)
        fused[f"{prefix}.down_proj"] = rows["down_proj"]
    published = tmp_path / "published"
    published.mkdir()
    (published / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file(fused, published / "model.safetensors", {"format": "pt"})
    ids = {"input_ids": torch.arange(1, 12)[None]}
    expected = logits(AutoModelForImageTextToText.from_pretrained(published).eval(), ids)
    teacher = SubblockCheckpoint.open(convert_model(published, tmp_path / "converted"))
    stored = {name: tensor for group in teacher.groups for name, tensor in teacher.load(group).items()}
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())
    torch.testing.assert_close(logits(load_model(teacher.path), ids), expected)
