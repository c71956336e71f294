"""Published checkpoints of the model type `nemotron_h_puzzle`, in tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.trust import trusting
from anyblock.errors import AnyBlockError
from anyblock.run.model_source import read_source
from anyblock_conformance.tiny import save_tiny
from safetensors.torch import load_file, save_file

IDS = torch.arange(12).reshape(1, 12)
BLOCKS: list[dict[str, Any]] = [
    {"block_type": "mamba"},
    {"block_type": "moe", "moe_intermediate_size": 12, "num_experts_per_tok": 2},
    {"block_type": "attention"},
    {"block_type": "moe", "moe_intermediate_size": 8, "num_experts_per_tok": 3},
]
"""As they are published: what all layers share stands once in the configuration, and what differs only here."""


def published(folder: Path, **changes: Any) -> Path:
    """Write a model whose second layer of experts is narrower and takes more experts, and which brings its own code."""
    config = get_family("nemotron_h").conformance_config()
    config.layers_block_type = ["linear_attention", "moe", "full_attention", "moe"]
    config.moe_intermediate_size = 12
    save_tiny(config, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.startswith("backbone.layers.3.mixer.experts."):
            tensors[name] = (tensors[name][:8] if "up_proj" in name else tensors[name][:, :8]).contiguous()
    tensors = {name.replace("backbone.", "model."): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    data = json.loads((folder / "config.json").read_text())
    for name in ("moe_intermediate_size", "num_experts_per_tok"):
        del data[name]
    code = "configuration_nemotron_h_puzzle.NemotronHPuzzleConfig"
    data |= {
        "architectures": ["NemotronHPuzzleForCausalLM"],
        "auto_map": {"AutoConfig": code},
        "model_type": "nemotron_h_puzzle",
        "num_hidden_layers": None,
        "layers_block_type": [block["block_type"] for block in BLOCKS],
        "block_configs": BLOCKS,
        "mtp_block_configs": [],
    }
    (folder / "configuration_nemotron_h_puzzle.py").write_text("raise RuntimeError('this code is not to be run')")
    (folder / "config.json").write_text(json.dumps(data | changes))
    return folder


@pytest.mark.parametrize("trust_remote_code", [False, True])
def test_a_published_checkpoint_is_a_nemotron_h_with_its_block_configs(trust_remote_code: bool, tmp_path: Path) -> None:
    folder = published(tmp_path / "source")
    with trusting(trust_remote_code):
        source = read_source(folder)
    converted = convert_model(folder, tmp_path / "model", trust_remote_code=trust_remote_code)
    teacher = SubblockCheckpoint.open(converted)
    assert (source.model_type, source.block_configs) == ("nemotron_h", teacher.block_configs)
    first, second = (teacher.block_configs[index].ffn.moe for index in (1, 3))
    assert (first.expert_intermediate_dim, first.num_experts_per_tok, first.num_local_experts) == (12, 2, 6)
    assert (second.expert_intermediate_dim, second.num_experts_per_tok, second.num_local_experts) == (8, 3, 6)
    assert teacher.config["moe_intermediate_size"] == 12
    logits = load_model(converted)(IDS).logits
    assert torch.equal(load_model(folder)(IDS).logits, logits)
    assert load_model(converted).model.layers[3].mixer.gate.top_k == 3


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"block_type": "attention", "sliding_window": 4},
            "layer 2 of this nemotron_h_puzzle model has sliding_window=4",
        ),
        ({**BLOCKS[1], "moe_latent_size": 16}, "differ in moe_latent_size"),
        ({"block_type": "hyena"}, r"block_configs\[2\]: block_type is 'hyena'"),
        ({"block_type": "mlp", "intermediate_size": "wide"}, r"block_configs\[2\]: .*intermediate_size"),
        ("mamba", r"block_configs\[2\]: str"),
    ],
)
def test_what_it_cannot_be_read_as_is_refused(block: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "nemotron_h_puzzle", "block_configs": [*BLOCKS[:2], block, BLOCKS[3]]})
    )
    with pytest.raises(AnyBlockError, match=message):
        read_config(tmp_path)
