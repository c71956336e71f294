"""How children are initialised, asked for in the guide's words and in ours, in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anyblock import load_model
from anyblock.config import RunConfig, load_config
from anyblock.pipeline.compress import compress
from anyblock.realize.realize import RECORD
from anyblock.run.run_folder import RunFolder

GUIDE = """
descriptor: llama
input_hf_model_path: {model}
puzzle_dir: {folder}/puzzle
dataset_path: {text}
build_replacement_library: {{add_ffn_no_ops: false, add_attention_no_ops: false}}
pruning:
  block_size: 32
  micro_batch_size: 4
  eval_samples: 16
  {pruning}
scoring: {{eval_samples: 4}}
realize_model: {{eval_samples: 4}}
mip: {{human_constraints: {{{constraint}}}}}
"""
HEADS = """
  pruning_mixin:
    _target_: modelopt.torch.puzzletron.pruning.kv_heads_pruning_mixin.KVHeadsPruningMixIn
    layer_descriptor:
      _target_: modelopt.torch.puzzletron.anymodel.models.llama.llama_model_descriptor.LlamaKVHeadsLayerDescriptor
  hook_class: ${get_object:modelopt.torch.prune.importance_hooks.IndependentKvHeadContributionHook}
  activation_hooks_kwargs: {method: independent_kv_head_contribution, target_layer: self_attn.o_proj}
  n_heads_in_group_list: [4]
  mlp_init_mode: CopyAsIs
  gqa_init_mode: """
WIDTHS = """
  pruning_mixin:
    _target_: pruning.ffn_intermediate_pruning_mixin.FFNIntermediatePruningMixIn
    layer_descriptor: {_target_: models.llama.llama_model_descriptor.LlamaFFNIntermediateLayerDescriptor}
  intermediate_size_list: [24]
  gqa_init_mode: CopyAsIs
  mlp_init_mode: """


def guide_run(tmp_path: Path, llama_dir: Path, text_file: Path, pruning: str, constraint: str) -> RunConfig:
    path = tmp_path / "main.yaml"
    path.write_text(
        GUIDE.format(model=llama_dir, folder=tmp_path, text=text_file, pruning=pruning, constraint=constraint)
    )
    return load_config(path, ["device=cpu", "search.refine_rounds=0"])


def own_run(settings: dict[str, Any], tmp_path: Path, pruning: dict[str, Any], budget: dict[str, Any]) -> RunConfig:
    """Our own YAML, from a file."""
    ours = {"ffn": {"no_op": False, "sizes": []}, "attention": {"no_op": False}, **pruning}
    path = tmp_path / "run.yaml"
    whole = {**settings, "pruning": ours, "search": {"budget": budget, "refine_rounds": 0}}
    path.write_text(yaml.safe_dump(whole))
    return load_config(path)


@pytest.mark.parametrize("words", ["the guide's", "ours"])
@pytest.mark.parametrize(("mode", "init"), [("AverageKV", "average"), ("FirstKV", "first")])
def test_key_value_heads_are_the_mean_or_the_first_of_those_they_stand_for(
    settings: dict[str, Any], tmp_path: Path, llama_dir: Path, text_file: Path, mode: str, init: str, words: str
) -> None:
    if words == "ours":
        kv = {"kv_heads": {"heads_per_group": [4], "init": init}}
        config = own_run(settings, tmp_path, kv, {"kv_heads": 3})
    else:
        config = guide_run(tmp_path, llama_dir, text_file, HEADS + mode, "stats.num_kv_heads: 3")
    result = compress(config)
    assert [block.attention.num_key_value_heads for block in result.child.block_configs] == [1, 1, 1]
    teacher, child = load_model(llama_dir).state_dict(), load_model(result.child.path).state_dict()
    for name, tensor in teacher.items():
        wanted = tensor
        if ".k_proj." in name or ".v_proj." in name:
            heads = tensor.reshape(1, 2, 8, *tensor.shape[1:])
            wanted = (heads.mean(dim=1) if init == "average" else heads[:, 0]).flatten(0, 1)
        torch.testing.assert_close(child[name], wanted, rtol=1e-6, atol=1e-7)
    record = (result.child.path / RECORD).read_text().split()
    assert "".join(record).count('"units":[[0,1]]' if init == "average" else '"units":[0]') == 3
    assert not list(RunFolder(result.run).folder("importance").glob("*.safetensors")), "no hook was filled"


@pytest.mark.parametrize("words", ["the guide's", "ours"])
def test_truncating_keeps_the_first_channels(
    settings: dict[str, Any], tmp_path: Path, llama_dir: Path, text_file: Path, words: str
) -> None:
    if words == "ours":
        widths = {"ffn": {"no_op": False, "sizes": [24], "init": "truncate"}, "repair": {"method": "none"}}
        config = own_run(settings, tmp_path, widths, {"params": "0.83x"})
    else:
        config = guide_run(
            tmp_path, llama_dir, text_file, WIDTHS + "Truncate\n  repair: {method: none}", "num_params: 25000"
        )
    result = compress(config)
    widths_now = [block.ffn.intermediate_size for block in result.child.block_configs]
    assert 24 in widths_now
    teacher, child = load_model(llama_dir).state_dict(), load_model(result.child.path).state_dict()
    for name, tensor in teacher.items():
        wanted = tensor
        if ".mlp." in name and widths_now[int(name.split(".")[2])] == 24 and not name.endswith("down_proj.bias"):
            wanted = tensor[:, :24] if "down_proj" in name else tensor[:24]
        assert torch.equal(child[name], wanted), name


def test_truncating_the_hidden_size_keeps_the_first_channels(settings: dict[str, Any], tmp_path: Path) -> None:
    narrow = {"hidden_size": {"sizes": [24], "init": "truncate"}, "repair": {"method": "none"}}
    result = compress(own_run(settings, tmp_path, narrow, {"params": "1x"}))
    teacher, child = (load_model(path).get_input_embeddings().weight for path in (settings["model"], result.child.path))
    assert torch.equal(child, teacher[:, :24])


def test_truncation_is_not_the_choice_of_scores(settings: dict[str, Any], tmp_path: Path) -> None:
    """Otherwise the tests above would prove little."""
    chosen = {"ffn": {"no_op": False, "sizes": [24]}, "repair": {"method": "none"}}
    result = compress(own_run(settings, tmp_path, chosen, {"params": "0.83x"}))
    rows = [load_model(path).model.layers[0].mlp.up_proj.weight for path in (settings["model"], result.child.path)]
    assert rows[1].shape == (24, 32)
    assert not torch.equal(rows[0][:24], rows[1])
