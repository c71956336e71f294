"""What is special about Gemma 4: images, dense FFNs with embeddings of their own, layers that are scaled in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, export_child, get_family, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.realize.realize import realize
from anyblock_conformance.tiny import save_tiny
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

IDS = torch.arange(1, 13).reshape(1, 12)
POSITIONS = torch.tensor([[[x, y] for y in range(3) for x in range(3)]])


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def without(teacher: SubblockCheckpoint, layer: int, halves: tuple[str, ...], folder: Path) -> Path:
    """Write the child without these halves of a layer."""
    family = get_family(teacher.config["model_type"])
    text = family.language_model_config(family.conformance_config())
    block = teacher.block_configs[layer]
    chosen = [Candidate(layer, half, NO_OP, 0, block.with_half(half, no_op=True)) for half in halves]
    return realize(teacher, chosen, CandidateWeights(teacher, family, text, {}), folder)


@pytest.mark.parametrize("model_type", ["gemma4", "gemma4_unified"])
def test_images_are_seen_as_by_the_stock_model(model_type: str, tmp_path: Path) -> None:
    """Also by a child without the second layer's ffn; nine patches are one token."""
    family = get_family(model_type)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 120, (1, 12), generator=generator)
    ids[0, 4] = 122
    pixels = torch.rand(1, 9, 48, generator=generator)
    positions = POSITIONS
    if model_type == "gemma4_unified":
        pixels, positions = torch.rand(1, 1, 432, generator=generator), POSITIONS[:, :1]
    inputs = {"input_ids": ids, "pixel_values": pixels, "image_position_ids": positions}
    inputs["mm_token_type_ids"] = (ids == 122).long()
    source = save_tiny(family.conformance_config(), tmp_path / "source")
    stock = AutoModelForImageTextToText.from_pretrained(source).eval()
    expected = logits(stock, inputs)
    assert not torch.allclose(logits(stock, {**inputs, "pixel_values": 1 - pixels}), expected, atol=1e-3)
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    torch.testing.assert_close(logits(load_model(teacher.path), inputs), expected)
    child = without(teacher, 1, ("ffn",), tmp_path / "child")
    layer = stock.model.language_model.layers[1]
    with torch.no_grad():
        layer.post_feedforward_layernorm.weight.zero_()
        if model_type == "gemma4":
            layer.post_per_layer_input_norm.weight.zero_()
    torch.testing.assert_close(logits(load_model(child), inputs), logits(stock, inputs))
    assert SubblockCheckpoint.open(child).groups["vision_encoding"] == teacher.groups["vision_encoding"]


def test_a_dense_ffn_with_embeddings_of_its_own(tmp_path: Path) -> None:
    """As in E2B, but for keys and values that layers share; the conformance suite's model has experts."""
    family = get_family("gemma4_text")
    config = family.conformance_config()
    config.enable_moe_block = False
    source = save_tiny(config, tmp_path / "source")
    stock = AutoModelForCausalLM.from_pretrained(source).eval()
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    assert {block.ffn.intermediate_size for block in teacher.block_configs} == {48}
    assert torch.equal(logits(load_model(teacher.path), {"input_ids": IDS}), logits(stock, {"input_ids": IDS}))
    child = without(teacher, 0, ("ffn",), tmp_path / "child")
    with torch.no_grad():
        stock.model.layers[0].post_feedforward_layernorm.weight.zero_()
        stock.model.layers[0].post_per_layer_input_norm.weight.zero_()
    found = logits(load_model(child), {"input_ids": IDS})
    torch.testing.assert_close(found, logits(stock, {"input_ids": IDS}))


@pytest.mark.parametrize("model_type", ["gemma4_text", "gemma4_unified_text"])
def test_a_layer_without_halves_leaves_what_it_is_given(model_type: str, tmp_path: Path) -> None:
    """It multiplies its result in place, and nothing was added to what it was given."""
    family = get_family(model_type)
    source = save_tiny(family.conformance_config(), tmp_path / "source")
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    child = SubblockCheckpoint.open(without(teacher, 1, ("attention", "ffn"), tmp_path / "child"))
    engine = LayerwiseModel(child, family)
    batch = engine.prepare(IDS)
    hidden = engine.run(0, batch.hidden, batch)
    before = hidden.clone()
    output = engine.run(1, hidden, batch)
    assert torch.equal(hidden, before)
    torch.testing.assert_close(output, before * engine.layers[1].get_buffer("layer_scalar"))
    torch.testing.assert_close(engine.logits(engine.run(2, output, batch), batch), load_model(child.path)(IDS).logits)


def test_a_child_whose_layers_are_pruned_alike_is_exported_as_a_stock_checkpoint(tmp_path: Path) -> None:
    """Where layers of one type differ, transformers refuses the child, and so does the export."""
    family = get_family("gemma4_unified_text")
    text = family.conformance_config()
    teacher = SubblockCheckpoint.open(convert_model(save_tiny(text, tmp_path / "source"), tmp_path / "teacher"))
    chosen = [
        Candidate(layer, "ffn", "ffn_intermediate", 16, block.with_ffn(intermediate_size=16))
        for layer, block in enumerate(teacher.block_configs)
    ]
    orders = {(candidate.layer, candidate.kind): torch.arange(48) for candidate in chosen}
    weights = CandidateWeights(teacher, family, text, orders)
    children = [realize(teacher, chosen[:end], weights, tmp_path / f"child-{end}") for end in (2, 3)]
    with pytest.raises(UnsupportedModelError, match="layers of one type be alike"):
        export_child(children[0], tmp_path / "out", "transformers")
    out = export_child(children[1], tmp_path / "out", "transformers")
    stock = AutoModelForCausalLM.from_pretrained(out, dtype="auto").eval()
    assert stock.config.intermediate_size == 16
    inputs = {"input_ids": IDS}
    assert torch.equal(logits(stock, inputs), logits(load_model(children[1]), inputs))


def test_keys_and_values_that_layers_share_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Layer by layer, a candidate would be scored with the keys and values of another one."""
    config = get_family("gemma4_text").conformance_config()
    config.layer_types, config.num_kv_shared_layers = ["sliding_attention", "full_attention", "full_attention"], 1
    source = save_tiny(config, tmp_path / "source")
    with pytest.raises(UnsupportedModelError, match="the last 1 layers reuse keys and values"):
        convert_model(source, tmp_path / "teacher")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
