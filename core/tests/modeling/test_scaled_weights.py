"""Checkpoints in 8 bits with scales, of any family: made plain when they are opened, as transformers makes them plain."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import CheckpointError
from anyblock.run.model_source import read_source
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

Stored = dict[str, torch.Tensor]
FP8 = torch.float8_e4m3fn
BLOCK = 16


def scaled(
    weight: torch.Tensor, rows: int, columns: int, top: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight in 8 bits and its scales, [rows, columns] of them."""
    blocks = weight.float().reshape(rows, weight.shape[0] // rows, columns, -1)
    scales = blocks.abs().amax((1, 3)) / top
    stored = blocks / scales[:, None, :, None]
    stored = stored.to(dtype) if dtype.is_floating_point else stored.round().to(dtype)
    return stored.reshape(weight.shape), scales


def in_blocks(weight: torch.Tensor) -> Stored:
    stored, scales = scaled(weight, weight.shape[0] // BLOCK, weight.shape[1] // BLOCK, 448, FP8)
    return {"weight": stored, "weight_scale_inv": scales}


def with_exponents(weight: torch.Tensor) -> Stored:
    """Scales that are powers of two, stored as their exponents (E8M0)."""
    exponents = in_blocks(weight)["weight_scale_inv"].log2().ceil()
    spread = exponents.exp2().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return {"weight": (weight.float() / spread).to(FP8), "weight_scale_inv": (exponents + 127).to(torch.uint8)}


def as_a_whole(weight: torch.Tensor) -> Stored:
    stored, scales = scaled(weight, 1, 1, 448, FP8)
    return {"weight": stored, "weight_scale_inv": scales.reshape(()), "activation_scale": torch.tensor(0.1)}


def in_rows(weight: torch.Tensor) -> Stored:
    stored, scales = scaled(weight, weight.shape[0], 1, 448, FP8)
    return {"weight": stored, "weight_scale": scales.bfloat16()}


def as_integers(weight: torch.Tensor) -> Stored:
    stored, scales = scaled(weight, weight.shape[0], 1, 127, torch.int8)
    return {"weight": stored, "weight_scale": scales, "input_scale": torch.ones(1)}


BLOCKS = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "float-quantized"}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "blocks": (in_blocks, BLOCKS),
    "exponents": (with_exponents, BLOCKS),
    "whole": (as_a_whole, {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}),
    "rows": (in_rows, COMPRESSED),
    "rows, fbgemm": (in_rows, {"quant_method": "fbgemm_fp8"}),
    "integers": (as_integers, COMPRESSED | {"format": "int-quantized"}),
}


def quantised(source: Path, target: Path, pack: Any, settings: dict[str, Any]) -> Path:
    """Copy a directory of transformers in bfloat16, its linear maps stored in 8 bits."""
    shutil.copytree(source, target)
    weights: Stored = {}
    for file in target.glob("*.safetensors"):
        weights |= load_file(file)
        file.unlink()
    (target / "model.safetensors.index.json").unlink(missing_ok=True)
    tensors: Stored = {}
    for name, tensor in weights.items():
        own = pack(tensor) if name.endswith("_proj.weight") else {"weight": tensor.bfloat16()}
        stem, _, last = name.rpartition(".")
        tensors |= {f"{stem}.{last if part == 'weight' else part}": kept for part, kept in own.items()}
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = json.loads((target / "config.json").read_text()) | {"dtype": "bfloat16", "quantization_config": settings}
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize("name", CASES)
def test_they_are_made_plain_as_transformers_does(llama_dir: Path, tmp_path: Path, name: str) -> None:
    source = quantised(llama_dir, tmp_path / "in", *CASES[name])
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    assert "quantization_config" not in teacher.config
    method = CASES[name][1]["quant_method"]
    assert f"{source} holds quantised weights ({method}), which are made plain" in "".join(read_source(source).notes)
    given = load_file(source / "model.safetensors")
    found = {key: tensor for group in teacher.model_groups for key, tensor in teacher.load(group).items()}
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert found.keys() == {key for key in given if "_scale" not in key}
    original = {key: tensor for file in llama_dir.glob("*.safetensors") for key, tensor in load_file(file).items()}
    for key, tensor in found.items():
        scale = given.get(f"{key}_scale_inv", given.get(f"{key}_scale"))
        if scale is None:
            assert torch.equal(tensor, given[key]), key
        elif given[key].is_floating_point():
            assert torch.equal(tensor, Fp8Dequantize(None)._dequantize_one(given[key], scale, torch.bfloat16)), key
        else:
            assert torch.equal(tensor, (given[key].float() * scale).bfloat16()), key
        assert (tensor - original[key]).abs().max() <= 0.1 * original[key].abs().max(), key
    assert load_model(teacher.path)(torch.arange(8)[None]).logits.isfinite().all()


def words(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack rows of whole numbers as compressed-tensors describes it: 32 bits a word, the first number lowest."""
    per_word, offset = 32 // bits, 1 << (bits - 1)
    rows = [
        [
            sum((int(number) + offset) << (bits * place) for place, number in enumerate(row[start : start + per_word]))
            for start in range(0, len(row), per_word)
        ]
        for row in values.tolist()
    ]
    return torch.tensor(rows, dtype=torch.int64).to(torch.int32)


def scheme(bits: int, group: int | None, target: str, *, symmetric: bool = True, form: str = "pack-quantized") -> Any:
    strategy = "channel" if group is None else "group"
    weights = {"num_bits": bits, "type": "int", "strategy": strategy, "group_size": group, "symmetric": symmetric}
    return {"targets": [target], "weights": weights, "format": form}


SCHEMES = {
    "q_proj": scheme(4, 8, "re:.*q_proj"),
    "k_proj": scheme(4, 16, "re:.*k_proj", symmetric=False),
    "v_proj": scheme(8, None, "re:.*v_proj", symmetric=False),
    "o_proj": scheme(2, None, "Linear"),
    "gate_proj": scheme(4, 8, "re:.*gate_proj", symmetric=False),  # with columns in an order of their own
    "up_proj": scheme(8, 8, "re:.*up_proj", symmetric=False, form="int-quantized"),
    "down_proj": scheme(8, None, "re:.*down_proj", form="int-quantized"),
}


def test_packed_integers_are_made_plain_as_compressed_tensors_does(llama_dir: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    expected: Stored = {}

    def pack(name: str, weight: torch.Tensor) -> Stored:
        """Return what is stored of a weight; its values are drawn anew, so that each of them can be told."""
        kind = name.split(".")[-2]
        stated = SCHEMES[kind]["weights"]
        bits, (out, width) = stated["num_bits"], weight.shape
        group, half = stated["group_size"] or width, 1 << (bits - 1)
        numbers = torch.randint(-half, half, (out, width), generator=generator)
        zeros = torch.randint(-half, half, (out, width // group), generator=generator)
        scales = (torch.rand(out, width // group, generator=generator) / 100 + 1e-3).bfloat16()
        order = torch.arange(width) // group
        own: Stored = {"weight_scale": scales, "weight_shape": torch.tensor([out, width])}
        if kind == "gate_proj":
            order = order[torch.randperm(width, generator=generator)]
            own["weight_g_idx"] = order.int()
        if packed := SCHEMES[kind]["format"] == "pack-quantized":
            own["weight_packed"] = words(numbers, bits)
        else:
            own = {"weight": numbers.to(torch.int8), "weight_scale": scales}
        if not stated["symmetric"]:
            own["weight_zero_point"] = words(zeros.T, bits).T.contiguous() if packed else zeros.to(torch.int8)
        shift = zeros[:, order] if not stated["symmetric"] else 0
        expected[name] = ((numbers - shift) * scales.double()[:, order]).bfloat16()
        return own

    settings = COMPRESSED | {"format": "mixed-precision", "config_groups": SCHEMES, "ignore": ["lm_head"]}
    named = {f"{name}.weight": name for name in SCHEMES}
    tensors: Stored = {}
    source = quantised(llama_dir, tmp_path / "in", as_integers, settings)
    for key, tensor in load_file(source / "model.safetensors").items():
        stem = key.removesuffix("weight")
        if ".".join(key.split(".")[-2:]) in named:
            tensors |= {stem + part: value for part, value in pack(key, tensor).items()}
        elif "_scale" not in key:
            tensors[key] = tensor
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    (source / "quantize_config.json").write_text("{}")  # of which nothing is true of the result
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    assert not (teacher.path / "quantize_config.json").exists()
    found = {key: tensor for group in teacher.model_groups for key, tensor in teacher.load(group).items()}
    assert len(expected) == len(SCHEMES) * len(teacher.block_configs)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key
    if find_spec("compressed_tensors") is None:  # what it does is computed above as well
        return
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    for key in expected:
        stem, kind = key.removesuffix("weight"), key.split(".")[-2]
        if kind == "gate_proj":  # newer versions of the package no longer know g_idx
            continue
        stated = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**SCHEMES[kind]["weights"]))
        compressor = BaseCompressor.get_value_from_registry(SCHEMES[kind]["format"].replace("int-", "naive-"))
        own = {name.removeprefix(stem): tensor for name, tensor in tensors.items() if name.startswith(stem)}
        assert torch.equal(compressor.decompress(own, stated)["weight"], found[key]), key


SMALL = ["data.block_size=16", "data.scoring_tokens=64", "data.calibration_tokens=256", "data.evaluation_tokens=64"]


def test_inspect_and_compress(llama_dir: Path, tmp_path: Path) -> None:
    source = quantised(llama_dir, tmp_path / "in", *CASES["blocks"])
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("\n".join(f"line {number} of some text to calibrate on" for number in range(60)))
    compress = ["compress", source, out, "--budget", "params=0.8x", "--data", text, *SMALL, "data.batch_size=4"]
    for arguments in (["inspect", source], compress):
        done = subprocess.run(
            [sys.executable, "-m", "anyblock", *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "which are made plain" in " ".join((done.stdout + done.stderr).split())
    child = SubblockCheckpoint.open(out)
    assert "quantization_config" not in child.config
    dtypes = {tensor.dtype for group in child.model_groups for tensor in child.load(group).values()}
    assert dtypes == {torch.bfloat16}


def uneven(weight: torch.Tensor) -> Stored:
    return in_blocks(weight) | {"weight_scale_inv": torch.ones(3, 1)}


def as_fours(weight: torch.Tensor) -> Stored:
    """DeepSeek-V4's experts: two 4-bit floats per byte."""
    return in_blocks(weight) | {"weight": torch.zeros(weight.shape[0], weight.shape[1] // 2, dtype=torch.int8)}


def shifted(weight: torch.Tensor) -> Stored:
    stored = as_integers(weight)
    return stored | {"weight_zero_point": torch.zeros(3, 1)}


REFUSED = {
    r"weight_scale_inv has shape \[3, 1\]": (uneven, BLOCKS),
    "is stored as int8": (as_fours, BLOCKS),
    r"weight_zero_point \[3, 1\]": (shifted, COMPRESSED),
    r"in holds quantised weights \(quanto\)": (in_rows, {"quant_method": "quanto"}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_made_plain_is_refused_by_name(llama_dir: Path, tmp_path: Path, reason: str) -> None:
    source = quantised(llama_dir, tmp_path / "in", *REFUSED[reason])
    for use in (lambda: convert_model(source, tmp_path / "out"), lambda: read_source(source)):
        with pytest.raises(CheckpointError, match=reason) as raised:
            use()
        assert "use the model that was quantised" in raised.value.hint
    assert not (tmp_path / "out").exists()
