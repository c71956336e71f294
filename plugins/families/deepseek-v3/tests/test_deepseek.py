"""What is special about DeepSeek: FP8 storage, layers behind the last one, latent attention, float32 biases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import CheckpointError
from anyblock.modeling.skeleton import model_class
from anyblock_conformance.decoding import real_cache
from anyblock_conformance.tiny import save_tiny
from safetensors.torch import load_file, save_file

BLOCK = 16
IDS = torch.arange(12).reshape(1, 12)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(get_family("deepseek_v3").conformance_config(), tmp_path_factory.mktemp("tiny") / "source")


def quantized(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight as 8-bit floats, and the scale of every block, block by block."""
    rows, columns = -(-weight.shape[0] // BLOCK), -(-weight.shape[1] // BLOCK)
    stored, scales = torch.empty(weight.shape, dtype=torch.float8_e4m3fn), torch.empty(rows, columns)
    for i in range(rows):
        for j in range(columns):
            here = slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK)
            scales[i, j] = weight[here].abs().max() / 448
            stored[here] = (weight[here] / scales[i, j]).to(torch.float8_e4m3fn)
    return stored, scales


@pytest.fixture(scope="module")
def fp8(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as DeepSeek publishes: linear maps in FP8, a further layer, router biases in float32."""
    folder = tmp_path_factory.mktemp("fp8")
    tensors = {}
    for name, tensor in load_file(tiny / "model.safetensors").items():
        tensors[name] = tensor if "correction_bias" in name else tensor.bfloat16()
        if "_proj.weight" in name:
            tensors[name], tensors[f"{name}_scale_inv"] = quantized(tensor)
    tensors |= {n.replace("layers.2.", "layers.3."): t.clone() for n, t in tensors.items() if "layers.2." in n}
    tensors["model.layers.3.eh_proj.weight"] = torch.ones(4, 8)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((tiny / "config.json").read_text()) | {
        "dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_published_checkpoint_becomes_the_model_in_bfloat16(fp8: Path, tmp_path: Path) -> None:
    checkpoint = SubblockCheckpoint.open(convert_model(fp8, tmp_path / "teacher"))
    assert "quantization_config" not in checkpoint.config
    source = load_file(fp8 / "model.safetensors")
    stored = {name: tensor for group in checkpoint.groups for name, tensor in checkpoint.load(group).items()}
    assert stored.keys() == {name for name in source if not name.endswith("_scale_inv")}
    for name, tensor in stored.items():
        scale = source.get(f"{name}_scale_inv")
        if scale is None:
            assert torch.equal(tensor, source[name])
            continue
        rows, columns = tensor.shape
        for i in range(0, rows, 7):
            for j in range(0, columns, 5):
                value = source[name][i, j].float() * scale[i // BLOCK, j // BLOCK]
                assert tensor[i, j] == value.bfloat16()
    assert {int(name.split(".")[2]) for name in checkpoint.groups["multi_token_prediction"]} == {3}

    config = get_family("deepseek_v3").conformance_config()
    plain = tmp_path / "plain"
    plain.mkdir()
    save_file({n: t for n, t in stored.items() if "layers.3." not in n}, plain / "model.safetensors", {"format": "pt"})
    (plain / "config.json").write_text(json.dumps(checkpoint.config))
    stock = model_class(config).from_pretrained(plain, dtype="auto").eval()
    for options in ({}, {"attn_implementation": "sdpa"}):
        model = load_model(checkpoint.path, **options)
        expected = stock.state_dict()
        assert {n: t.dtype for n, t in model.state_dict().items()} == {n: t.dtype for n, t in expected.items()}
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(model(IDS).logits, stock(IDS).logits)
    dtypes = {str(tensor.dtype) for name, tensor in stock.state_dict().items() if "correction_bias" in name}
    assert dtypes == {"torch.float32"}


def test_dequantizing_agrees_with_transformers_where_blocks_are_whole() -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    weight = torch.randn(2 * BLOCK, 3 * BLOCK, generator=torch.Generator().manual_seed(0))
    stored, scales = quantized(weight)
    expected = Fp8Dequantize(None)._dequantize_one(stored, scales, torch.bfloat16)
    assert torch.equal(dequantized(stored, scales), expected)
    assert (expected.float() - weight).abs().max() < 0.2


def test_dequantizing_works_on_shapes_alone_and_refuses_scales_of_another_weight() -> None:
    meta = dequantized(*(tensor.to("meta") for tensor in quantized(torch.randn(20, 40))))
    assert (meta.is_meta, meta.dtype, meta.shape) == (True, torch.bfloat16, (20, 40))
    with pytest.raises(CheckpointError, match=r"W_scale_inv has shape \[2, 2\]") as caught:
        dequantized(torch.zeros(20, 40), torch.ones(2, 2))
    assert "[2, 3]" in str(caught.value.expected)


def dequantized(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    config: Any = type(
        "Config", (), {"dtype": "bfloat16", "quantization_config": {"weight_block_size": [BLOCK, BLOCK]}}
    )
    return get_family("deepseek_v3").dequantize_tensor("W", {"W": weight, "W_scale_inv": scale}, config)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "deepseek_v2"])
def test_the_cache_of_latent_attention_is_counted_to_the_byte(model_type: str) -> None:
    family = get_family(model_type)
    config = family.conformance_config()
    blocks = family.create_block_configs(config)
    torch.manual_seed(0)
    model = model_class(config)._from_config(config, dtype=torch.bfloat16).eval()
    cache = real_cache(model, IDS.expand(3, -1))
    for index, layer in enumerate(cache.layers):
        held = sum(tensor.numel() * tensor.element_size() for tensor in (layer.keys, layer.values))
        assert held == 3 * 2 * family.cache_spec(config, blocks[index], index).elements(12)


def test_experts_go_in_equal_numbers_from_every_group() -> None:
    family = get_family("deepseek_v3")
    config = family.conformance_config()
    block = family.create_block_configs(config)[1]
    mixin = family.pruning_mixins()["experts_removal"]
    assert list(mixin.legal_sizes(block, config)) == [4, 6]
    assert mixin.kept(block, 4, config).tolist() == [0, 1, 3, 4]
