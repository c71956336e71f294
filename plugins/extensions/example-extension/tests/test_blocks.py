"""Blocks of channels: the scores, the weights that stay, and a copy of the distribution that is installed and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import UsageError
from anyblock.importance import HookContext
from anyblock.pruning.layouts import dense_mixins
from anyblock_example_extension.blocks import FFNBlocksPruningMixIn, WandaBlockContributionHook
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).parents[4]
HERE = Path(__file__).parents[1]
MODEL = ROOT / "core" / "tests" / "assets" / "tiny-llama"
TEXT = ROOT / "demo" / "text" / "calibration.txt"
BLOCK = BlockConfig(attention=AttentionConfig(num_key_value_heads=1), ffn=FFNConfig(intermediate_size=64))
MIXIN = FFNBlocksPruningMixIn(dense_mixins()["ffn_intermediate"].layer_descriptor)


def test_a_blocks_score_is_the_sum_of_its_channels():
    module, tokens = nn.Linear(64, 3).requires_grad_(False), torch.randn(2, 5, 64)
    hook = WandaBlockContributionHook(module, HookContext(SimpleNamespace(), BLOCK, 0, 1))
    handle = hook.attach()
    module(tokens)
    handle.remove()
    norms = tokens.reshape(-1, 64).norm(dim=0)
    each = [float(module.weight[:, channel].abs().sum() * norms[channel]) for channel in range(64)]
    expected = torch.tensor([sum(each[start : start + 16]) for start in range(0, 64, 16)])
    torch.testing.assert_close(hook.scores(), expected)


def test_whole_blocks_stay_and_the_child_is_the_teacher_without_the_others():
    prefix = "model.layers.0.mlp"
    tensors = {f"{prefix}.{name}_proj.weight": torch.randn(64, 8) for name in ("gate", "up")}
    tensors[f"{prefix}.down_proj.weight"] = torch.randn(8, 64)
    order, child = torch.tensor([2, 0, 3, 1]), BLOCK.with_ffn(intermediate_size=32)
    ordered = MIXIN.sort(0, tensors, BLOCK, order, SimpleNamespace())
    narrow = MIXIN.narrow(0, ordered, BLOCK, child, SimpleNamespace())
    kept = torch.cat([torch.arange(32, 48), torch.arange(16)])
    assert torch.equal(narrow[f"{prefix}.up_proj.weight"], tensors[f"{prefix}.up_proj.weight"][kept])
    assert torch.equal(narrow[f"{prefix}.down_proj.weight"], tensors[f"{prefix}.down_proj.weight"][:, kept])
    masked = MIXIN.mask(0, ordered, BLOCK, child, SimpleNamespace())

    def run(half: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        gate, up, down = (half[f"{prefix}.{name}_proj.weight"] for name in ("gate", "up", "down"))
        return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T

    x = torch.randn(5, 8)
    torch.testing.assert_close(run(narrow, x), run(masked, x))


def test_a_number_of_blocks_beyond_the_teachers_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="4") as caught:
        MIXIN.resize(BLOCK, 5, SimpleNamespace())
    assert "nearest possible size is 4" in caught.value.hint
    assert not MIXIN.applies_to(BLOCK.with_ffn(intermediate_size=63))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this distribution with all names changed, as the README says, built and installed into a folder."""
    folder = tmp_path_factory.mktemp("copy")
    source = folder / "copied-extension"
    shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    (source / "src" / "anyblock_example_extension").rename(source / "src" / "anyblock_copied_extension")
    changes = {"example": "copied", "Wanda": "Copied", "wanda": "copied", "FFNBlocks": "CopiedBlocks"}
    changes["ffn_blocks"] = "copied_blocks"
    (source / "src" / "anyblock_copied_extension" / "wanda.py").rename(
        source / "src" / "anyblock_copied_extension" / "copied.py"
    )
    for path in [source / "pyproject.toml", *source.rglob("*.py")]:
        text = re.sub("|".join(changes), lambda found: changes[found[0]], path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", folder / "site", source], check=True, capture_output=True)
    return folder / "site"


def anyblock(site: Path, folder: Path, *arguments: str) -> str:
    # The copy has the names of the original in all kinds but the two that it is about.
    environment = {"PYTHONPATH": str(site), "ANYBLOCK_DISABLE_PLUGINS": "anyblock-example-extension"}
    done = subprocess.run(
        [sys.executable, "-m", "anyblock", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_distribution_adds_a_hook_and_a_kind_of_pruning_from_yaml(installed: Path, tmp_path: Path):
    pytest.importorskip("anyblock_llama")
    assert "anyblock-copied-extension" in anyblock(installed, tmp_path, "families", "--json")
    run = f"""
        model: {MODEL}
        output: child
        data: {{path: {TEXT}, block_size: 64, calibration_tokens: 1024, scoring_tokens: 256}}
        evaluation: {{enabled: false}}
        search: {{budget: {{params: 0.9x}}, refine_rounds: 0}}
        pruning:
          attention: {{no_op: false}}
          ffn: {{no_op: false, sizes: []}}
          copied_blocks: {{sizes: [6, 0.5], hook: CopiedBlockContributionHook}}
    """
    (tmp_path / "run.yaml").write_text(run, encoding="utf-8")
    anyblock(installed, tmp_path, "compress", "run.yaml")
    kept = json.loads((tmp_path / "child" / "anyblock.json").read_text())["kept_units"]
    assert {found["kind"] for found in kept.values()} == {"copied_blocks"}
    blocks = json.loads((tmp_path / "child" / "config.json").read_text())["block_configs"]
    teacher = load_file(MODEL / "model.safetensors")
    for group, found in kept.items():
        layer = int(group.split("_")[1])
        assert blocks[layer]["ffn"]["intermediate_size"] == 16 * len(found["units"]) in (96, 144)
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        child = load_file(tmp_path / "child" / "subblocks_safetensors" / f"{group}.safetensors")[name]
        rows = torch.cat([torch.arange(16 * unit, 16 * unit + 16) for unit in found["units"]])
        assert torch.equal(child, teacher[name][rows])


def test_the_guides_words_find_the_mixin_too(installed: Path, tmp_path: Path):
    pytest.importorskip("anyblock_llama")
    run = f"""
        descriptor: llama
        input_hf_model_path: {MODEL}
        output: child
        data: {{path: {TEXT}, block_size: 64, calibration_tokens: 512, scoring_tokens: 128}}
        evaluation: {{enabled: false}}
        search: {{budget: {{params: 0.9x}}, refine_rounds: 0}}
        build_replacement_library: {{add_ffn_no_ops: false, add_attention_no_ops: false}}
        pruning:
          pruning_mixin: {{_target_: anyblock_copied_extension.blocks.CopiedBlocksPruningMixIn}}
          hook_class: ${{get_object:anyblock_copied_extension.blocks.CopiedBlockContributionHook}}
          intermediate_size_list: [9]
    """
    (tmp_path / "run.yaml").write_text(run, encoding="utf-8")
    anyblock(installed, tmp_path, "compress", "run.yaml")
    kept = json.loads((tmp_path / "child" / "anyblock.json").read_text())["kept_units"]
    assert {(found["kind"], len(found["units"])) for found in kept.values()} == {("copied_blocks", 9)}
