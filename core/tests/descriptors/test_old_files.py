"""Files from before rotary frequencies moved out of the layers (Llama 2): transformers ignores them, and so do we."""

from __future__ import annotations

from pathlib import Path

import torch
from anyblock import convert_model, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.costs.cost_model import model_costs
from anyblock.family import get_family
from safetensors.torch import load_file, save_file


def test_rotary_frequencies_in_layers_are_kept_and_not_loaded(
    llama_dir: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_bytes((llama_dir / "config.json").read_bytes())
    old = {f"model.layers.{index}.self_attn.rotary_emb.inv_freq": torch.ones(4) for index in range(3)}
    save_file(load_file(llama_dir / "model.safetensors") | old, source / "model.safetensors", {"format": "pt"})
    stock = load_model(llama_dir)
    converted = SubblockCheckpoint.open(convert_model(source, tmp_path / "converted"))
    assert set(converted.groups["rotary_buffers"]) == set(old)
    for options in ({}, {"attn_implementation": "sdpa"}):
        assert torch.equal(load_model(converted.path, **options)(ids).logits, stock(ids).logits)
    shapes = {group: converted.meta(group) for group in converted.groups}
    costs = model_costs(get_family("llama"), stock.config, converted.block_configs, shapes)
    assert costs.params == sum(parameter.numel() for parameter in stock.parameters())
