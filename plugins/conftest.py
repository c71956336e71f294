"""What tests of several adapters share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def check_golden(shared_dir: Path, tmp_path: Path) -> Callable[..., None]:
    """Convert a model that the reference converted, and compare block configs, groups and tensors with its result.

    `corrected` turns a block config of the reference into what it should be, where that is wrong.
    """

    def check(name: str, corrected: Callable[[Any], Any] = lambda block: block) -> None:
        from anyblock import convert_model
        from anyblock.checkpoint.subblocks import SubblockCheckpoint
        from anyblock.contract.blocks import block_configs_from_json
        from safetensors.torch import load_file, save_file

        golden, source = shared_dir / "golden" / "families" / name, tmp_path / "source"
        source.mkdir()
        (source / "config.json").write_bytes((golden / "config.in.json").read_bytes())
        parent = load_file(golden / "parent.safetensors")
        save_file(parent, source / "model.safetensors", {"format": "pt"})
        expected = json.loads((golden / "converted.json").read_text())
        converted = SubblockCheckpoint.open(convert_model(source, tmp_path / "converted"))
        blocks = block_configs_from_json(expected["config"].pop("block_configs"))
        assert converted.block_configs == [corrected(block) for block in blocks]
        assert converted.config == expected["config"]
        places = {name: converted.file(group).name for group, names in converted.groups.items() for name in names}
        assert places == {name: Path(place).name for name, place in expected["index"]["weight_map"].items()}
        for group in converted.groups:
            for name, tensor in converted.load(group).items():
                assert torch.equal(tensor, parent[name])

    return check
