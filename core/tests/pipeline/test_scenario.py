"""What memory is counted for when a run does not say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from anyblock.config import load_config
from anyblock.run.model_source import read_source
from anyblock.stages.candidates import scenario_of
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_cache_is_of_the_weights_type_where_the_config_states_none(dtype, llama_dir: Path, tmp_path: Path):
    import torch

    config = json.loads((llama_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({key: config[key] for key in config.keys() - {"dtype"}}))
    tensors = load_file(llama_dir / "model.safetensors")
    stored = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    run = load_config(None, [], {"model": str(tmp_path), "output": str(tmp_path / "child")})
    assert scenario_of(run, read_source(tmp_path)).cache_dtype == dtype
