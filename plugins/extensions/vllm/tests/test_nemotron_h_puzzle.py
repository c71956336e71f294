"""The `nemotron_h_puzzle` format: what its readers ask the configuration for is what the files hold, and it comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, export_child, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import UnsupportedModelError
from anyblock_tests.small_nemotrons import CHILDREN, GONE, different, nemotron_child
from safetensors.torch import load_file

pytest.importorskip("anyblock_nemotron_h")
IDS = torch.arange(1, 13).reshape(1, 12)


@pytest.mark.parametrize("name", ["all", "heads"])
def test_what_readers_ask_for_is_in_the_files_and_comes_back(name: str, tmp_path: Path) -> None:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    child = nemotron_child(tmp_path, CHILDREN[name])
    out = export_child(child, tmp_path / "out", "nemotron_h_puzzle")
    stated = json.loads((out / "config.json").read_text())
    # As vLLM gets it, in whose process AnyBlock is not.
    config = get_class_from_dynamic_module(stated["auto_map"]["AutoConfig"], out).from_pretrained(out)
    assert (config.model_type, config.architectures) == ("nemotron_h_puzzle", ["NemotronHPuzzleForCausalLM"])
    shapes = {}
    for file in out.glob("*.safetensors"):
        shapes |= {tensor: tuple(value.shape) for tensor, value in load_file(file).items()}
    for index, letter in enumerate(config.hybrid_override_pattern):
        mixer, layer = f"backbone.layers.{index}.mixer", config.get_nemotron_h_config_for_layer(index)
        if letter == "E":
            experts = {tensor.split(".")[5] for tensor in shapes if tensor.startswith(f"{mixer}.experts.")}
            assert experts == set(map(str, range(layer.n_routed_experts)))
            assert shapes[f"{mixer}.experts.0.up_proj.weight"] == (layer.moe_intermediate_size, layer.moe_latent_size)
            assert shapes[f"{mixer}.shared_experts.up_proj.weight"][0] == layer.moe_shared_expert_intermediate_size
        elif letter == "-":
            assert shapes[f"{mixer}.up_proj.weight"][0] == layer.intermediate_size
        elif letter == "*":
            assert shapes[f"{mixer}.k_proj.weight"][0] == config.num_key_value_heads * config.head_dim
        else:
            assert shapes[f"{mixer}.A_log"] == (config.mamba_num_heads,)
    assert f"backbone.layers.{len(config.hybrid_override_pattern)}.norm.weight" not in shapes
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["block_configs"] == stated["block_configs"]

    blocks = [block for block in SubblockCheckpoint.open(child).block_configs if block != GONE]
    back = SubblockCheckpoint.open(convert_model(out, tmp_path / "back"))
    assert (back.config["model_type"], back.block_configs) == ("nemotron_h", blocks)
    logits = load_model(child)(IDS).logits
    assert torch.equal(load_model(back.path)(IDS).logits, logits)
    assert torch.equal(load_model(out)(IDS).logits, logits)


def heads(count: int) -> Any:
    return lambda block: block.with_attention(num_key_value_heads=count)


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({2: heads(1)}, {}, "num_key_value_heads of 1, 2; the form has one number"),
        ({1: different(4)}, {"mlp_bias": True}, "shared_experts.down_proj.bias, which vLLM's Nemotron-H does not have"),
        ({1: different(4)}, {"mlp_hidden_act": "silu"}, "its mlp_hidden_act is silu, and readers compute relu2"),
    ],
)
def test_what_readers_cannot_build_is_refused(
    changes: dict[int, Any], config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    child = nemotron_child(tmp_path, changes, **config)
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        export_child(child, tmp_path / "out", "nemotron_h_puzzle")
    assert "transformers" in caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"saved", "child"}
