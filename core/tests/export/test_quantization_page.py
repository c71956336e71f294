"""The page about quantization: its blocks are run on a child. `nox -s quantize` installs torchao for it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from anyblock import export_child
from anyblock_tests.pages import blocks_of
from anyblock_tests.processes import run_python

CHECKS = """
import torch
from torchao.quantization import Int8Tensor

plain = AutoModelForCausalLM.from_pretrained("child-transformers", trust_remote_code=True)
linear = {name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
shapes = {name: tuple(parameter.shape) for name, parameter in plain.named_parameters()}
for each in (model, quantized):
    assert {name: tuple(parameter.shape) for name, parameter in each.named_parameters()} == shapes
    assert {name for name, module in each.named_modules() if isinstance(getattr(module, "weight", None), Int8Tensor)} == linear
assert len({shapes[f"{name}.weight"] for name in linear if name.endswith(("k_proj", "up_proj"))}) == 4
ids = tokenizer("This is a line of text.", return_tensors="pt").input_ids
with torch.no_grad():
    assert torch.equal(quantized(ids).logits, model(ids).logits)
assert 0 < result.kl_per_token < 0.01, result.kl_per_token
"""


def test_everything_on_the_page_runs(trained_child: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="nox -s quantize installs it")
    shutil.copytree(trained_child, tmp_path / "child")
    (tmp_path / "text.txt").write_text("\n".join(f"This is line {number} of a text." for number in range(60)))
    blocks = blocks_of("quantization.md")
    assert [language for language, _ in blocks] == ["console", "python", "python", "python"]
    export, install = (shlex.split(line) for line in blocks[0][1].splitlines())
    assert install[:3] == ["$", "pip", "install"]
    assert export == shlex.split("$ anyblock export child child-transformers --format transformers")
    export_child(tmp_path / "child", tmp_path / "child-transformers", "transformers")
    code = "\n".join(block for language, block in blocks if language == "python")
    printed = run_python("-c", code + CHECKS, folder=tmp_path)
    before, after = (
        sum(file.stat().st_size for file in (tmp_path / name).glob("*.safetensors"))
        for name in ("child-transformers", "child-int8")
    )
    assert after < 0.65 * before
    print(printed)
