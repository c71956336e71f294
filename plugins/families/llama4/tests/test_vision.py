"""Llama 4 with its vision tower: the tower is kept as it is, and images are read as by the stock model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from anyblock import convert_model, get_family, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.realize.realize import realize
from anyblock_conformance.tiny import save_tiny
from transformers import AutoModelForImageTextToText


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def test_images_are_seen_as_by_the_stock_model(tmp_path: Path) -> None:
    """Also by a child without the experts of its second layer: the image reaches the answer through the others."""
    family = get_family("llama4")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 120, (1, 12), generator=generator)
    ids[0, 2:8] = torch.tensor([125, 127, 127, 127, 127, 126])  # an image of four by four patches is four tokens
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 28, 28, generator=generator)}
    source = save_tiny(family.conformance_config(), tmp_path / "source")
    stock = AutoModelForImageTextToText.from_pretrained(source).eval()
    expected = logits(stock, inputs)
    assert not torch.allclose(logits(stock, {**inputs, "pixel_values": -inputs["pixel_values"]}), expected, atol=1e-3)
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    torch.testing.assert_close(logits(load_model(teacher.path), inputs), expected)
    block = teacher.block_configs[1].with_ffn(no_op=True)
    weights = CandidateWeights(teacher, family, family.language_model_config(stock.config), {})
    child = realize(teacher, [Candidate(1, "ffn", NO_OP, 0, block)], weights, tmp_path / "child")
    sparse = stock.language_model.model.layers[1].feed_forward
    with torch.no_grad():
        sparse.experts.down_proj.zero_()
        sparse.shared_expert.down_proj.weight.zero_()
    torch.testing.assert_close(logits(load_model(child), inputs), logits(stock, inputs))
    assert SubblockCheckpoint.open(child).groups["vision_encoding"] == teacher.groups["vision_encoding"]
