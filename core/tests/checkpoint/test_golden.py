"""The conversion of a Llama agrees with NVIDIA ModelOpt's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model
from anyblock.checkpoint import SubblockCheckpoint
from anyblock.contract.blocks import block_configs_from_json
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.shared
INDEX = "model.safetensors.index.json"


@pytest.fixture
def golden(shared: Path) -> Path:
    return shared / "golden" / "families" / "llama" / "fp32"


@pytest.fixture
def expected(golden: Path) -> Any:
    return json.loads((golden / "converted.json").read_text())


@pytest.fixture
def source(golden: Path, expected: Any, tmp_path: Path) -> Path:
    """The source of the reference's conversion, sharded as it was, with stand-ins for its tokenizer files."""
    folder = tmp_path / "source"
    folder.mkdir()
    tensors = load_file(golden / "parent.safetensors")
    shards = json.loads((golden / "shards.json").read_text())
    for file in sorted(set(shards.values())):
        save_file({name: tensors[name] for name in tensors if shards[name] == file}, folder / file, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    (folder / "config.json").write_bytes((golden / "config.in.json").read_bytes())
    for name, size in expected["files"].items():
        if "/" not in name and name not in {"config.json", INDEX}:
            (folder / name).write_bytes(b"x" * size)
    return folder


def test_the_same_files_index_and_config(source: Path, expected: Any, golden: Path, tmp_path: Path) -> None:
    out = convert_model(source, tmp_path / "out")
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == set(expected["files"])
    assert json.loads((out / INDEX).read_text())["weight_map"] == expected["index"]["weight_map"]
    config = json.loads((out / "config.json").read_text())
    blocks = block_configs_from_json(config.pop("block_configs"))
    assert blocks == block_configs_from_json(expected["config"].pop("block_configs"))
    assert config == expected["config"]
    parent = load_file(golden / "parent.safetensors")
    checkpoint = SubblockCheckpoint.open(out)
    for group in checkpoint.groups:
        # ModelOpt leaves the metadata out; transformers asks for it
        file = checkpoint.file(group)
        theirs = expected["files"][f"subblocks_safetensors/{file.name}"] + len('"__metadata__":{"format":"pt"},')
        assert abs(file.stat().st_size - theirs) < 8
        for name, tensor in checkpoint.load(group).items():
            assert torch.equal(tensor, parent[name])


def test_a_checkpoint_of_the_reference_is_read(source: Path, expected: Any, golden: Path, tmp_path: Path) -> None:
    """Written as ModelOpt writes it, from its own config and index, and read back by us and by transformers."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "modelopt"
    (folder / "subblocks_safetensors").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(expected["config"], indent=2))
    (folder / INDEX).write_text(json.dumps(expected["index"]))
    parent = load_file(golden / "parent.safetensors")
    for file in set(expected["index"]["weight_map"].values()):
        names = [name for name, place in expected["index"]["weight_map"].items() if place == file]
        save_file({name: parent[name] for name in names}, folder / file, {"format": "pt"})
    ours = SubblockCheckpoint.open(convert_model(source, tmp_path / "out"))
    theirs = SubblockCheckpoint.open(folder)
    assert theirs.block_configs == ours.block_configs
    assert theirs.config == ours.config
    assert {g: set(n) for g, n in theirs.groups.items()} == {g: set(n) for g, n in ours.groups.items()}
    models = [AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (ours.path, theirs.path)]
    assert models[0].keys() == models[1].keys() == parent.keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in parent)
