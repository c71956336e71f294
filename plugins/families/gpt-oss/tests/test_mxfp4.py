"""MXFP4: reading it, writing it back, and a whole checkpoint through both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.export.exported_child import ExportedChild
from anyblock.realize.realize import realize
from anyblock_conformance.tiny import save_tiny
from anyblock_gpt_oss.mxfp4 import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
EVEN = [0, 2, 4, 6]
seeds = st.integers(0, 2**32 - 1)
examples = settings(deadline=None, derandomize=True, max_examples=25)


def decode(blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    sources = {"W_blocks": blocks, "W_scales": scales}
    return get_family("gpt_oss").dequantize_tensor("W", sources, SimpleNamespace(dtype=dtype))


def random_blocks(seed: int, lowest: int = 60, highest: int = 190) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (2, 6, 3, 16), dtype=torch.uint8, generator=generator)
    # Blocks that are all small, or all zero, as well.
    blocks[0, 0] &= 0b10011001
    blocks[0, 1] = 0
    return blocks, torch.randint(lowest, highest, (2, 6, 3), generator=generator).to(torch.uint8)


@examples
@given(seeds)
def test_decoding_is_what_the_specification_says(seed):
    blocks, scales = random_blocks(seed)
    found = decode(blocks, scales, torch.float32)
    assert found.shape == (2, 96, 6)
    for expert, row, group, place in [(0, 0, 0, 0), (1, 5, 2, 31), (1, 2, 1, 16), (0, 3, 2, 7)]:
        byte = int(blocks[expert, row, group, place // 2])
        code = byte >> 4 if place % 2 else byte & 15
        value = (-1.0) ** (code >> 3) * float(VALUES[code & 7]) * 2.0 ** (int(scales[expert, row, group]) - 127)
        assert float(found[expert, 32 * group + place, row]) == value


@examples
@given(seeds)
def test_what_was_decoded_comes_back_as_it_was(seed):
    for dtype in (torch.bfloat16, torch.float32):
        weights = decode(*random_blocks(seed), dtype)
        again = encode(weights)
        assert torch.equal(decode(*again, dtype), weights)
        assert all(torch.equal(x, y) for x, y in zip(encode(decode(*again, dtype)), again, strict=True))


@examples
@given(seeds)
def test_encoding_takes_the_nearest_number_and_the_even_code_between_two(seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, 64, 5, generator=generator)
    weights[0, 1:32, 0] = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]).repeat(5)[:31]
    weights[0, 0, 0] = 4.0
    blocks, scales = encode(weights)
    codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).reshape(2, 5, 2, 32)
    grouped = weights.transpose(1, 2).reshape(2, 5, 2, 32).double()
    exponent = scales.double() - 127
    largest = grouped.abs().amax(dim=-1)
    assert torch.equal(exponent, largest.log2().floor() - 2)
    scaled = grouped / (2.0**exponent).unsqueeze(-1)
    assert torch.equal(codes >> 3, scaled.signbit().to(torch.uint8))
    errors = (scaled.abs().unsqueeze(-1) - VALUES.double()).abs()
    nearest = errors.amin(dim=-1)
    assert torch.equal(errors.gather(-1, (codes & 7).long().unsqueeze(-1)).squeeze(-1), nearest)
    tied = (errors == nearest.unsqueeze(-1)).sum(dim=-1) > 1
    assert tied.any()
    assert ((codes & 7)[tied] % 2 == 0).all()


def test_shapes_alone_are_enough_to_decode():
    blocks, scales = (tensor.to("meta") for tensor in random_blocks(0))
    found = decode(blocks, scales)
    assert (found.is_meta, found.dtype, found.shape) == (True, torch.bfloat16, (2, 96, 6))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in the form in which gpt-oss is published; experts are 32 wide, so that a block fits in."""
    folder = tmp_path_factory.mktemp("gpt-oss")
    config = get_family("gpt_oss").conformance_config()
    config.intermediate_size = 32
    save_tiny(config, folder / "plain")
    tensors = {}
    for name, tensor in load_file(folder / "plain" / "model.safetensors").items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = encode(tensor)
        else:
            tensors[name] = tensor.bfloat16()
    source = folder / "source"
    shutil.copytree(folder / "plain", source)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    data = json.loads((source / "config.json").read_text())
    data |= {"dtype": "bfloat16", "quantization_config": {"quant_method": "mxfp4"}}
    (source / "config.json").write_text(json.dumps(data))
    return source


@pytest.fixture(scope="module")
def teacher(published: Path, tmp_path_factory: pytest.TempPathFactory) -> SubblockCheckpoint:
    return SubblockCheckpoint.open(convert_model(published, tmp_path_factory.mktemp("converted") / "teacher"))


def stock(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


IDS = torch.arange(20).reshape(1, 20)


def test_a_converted_checkpoint_is_the_model_that_transformers_makes_of_it(published, teacher):
    assert "quantization_config" not in teacher.config
    expected, found = stock(published), load_model(teacher.path)
    state = expected.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    assert found.state_dict().keys() == state.keys()
    assert torch.equal(found(IDS).logits, expected(IDS).logits)


def test_a_child_is_written_back_with_the_bytes_of_the_experts_that_it_keeps(published, teacher, tmp_path):
    family = get_family("gpt_oss")
    config = family.conformance_config()
    block = teacher.block_configs[0]
    chosen = [
        Candidate(0, "ffn", "experts_removal", 3, block.with_moe(num_local_experts=3)),
        Candidate(1, "attention", "kv_heads", 1, block.with_attention(num_key_value_heads=1)),
        Candidate(2, "ffn", "experts_removal", 2, block.with_moe(num_local_experts=2)),
    ]
    orders = {(0, "experts_removal"): torch.tensor([3, 0, 2, 1]), (2, "experts_removal"): torch.tensor([1, 2, 0, 3])}
    child = SubblockCheckpoint.open(
        realize(teacher, chosen, CandidateWeights(teacher, family, config, orders), tmp_path / "child")
    )
    form = family.export_formats()["mxfp4"]()
    assert form.obstacles(ExportedChild(child, family)) == []
    out = tmp_path / "mxfp4"
    out.mkdir()
    form.write(ExportedChild(child, family), out)

    kept = json.loads((out / "anyblock.json").read_text())["kept_units"]
    assert kept["block_0_ffn"]["units"] == [3, 0, 2]
    source = load_file(published / "model.safetensors")
    written = {}
    for path in out.glob("*.safetensors"):
        written |= load_file(path)
    for layer in range(3):
        units = kept.get(f"block_{layer}_ffn", {"units": [0, 1, 2, 3]})["units"]
        for part in ("gate_up_proj", "down_proj"):
            for end in ("blocks", "scales", "bias"):
                name = f"model.layers.{layer}.mlp.experts.{part}_{end}"
                assert torch.equal(written[name], source[name][units])
    assert (out / "tokenizer.json").exists()

    # It loads as it is, and converts into the child that it was written from.
    expected = load_model(child.path)(IDS).logits
    assert torch.equal(load_model(out)(IDS).logits, expected)
    again = SubblockCheckpoint.open(convert_model(out, tmp_path / "again"))
    assert again.block_configs == child.block_configs
    for group in child.groups:
        stored = again.load(group)
        assert all(torch.equal(tensor, stored[name]) for name, tensor in child.load(group).items())


def test_widths_that_do_not_fill_a_block_are_an_obstacle(tmp_path):
    family = get_family("gpt_oss")
    checkpoint = SubblockCheckpoint.open(
        convert_model(save_tiny(family.conformance_config(), tmp_path / "source"), tmp_path / "teacher")
    )
    assert family.export_formats()["mxfp4"]().obstacles(ExportedChild(checkpoint, family)) == [
        f"model.layers.{layer}.mlp.experts.down_proj has 16 inputs, not a multiple of 32" for layer in range(3)
    ]
