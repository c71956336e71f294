"""A small trained model, from its files to a child of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import compress, convert_model, evaluate, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import load_config
from anyblock.family import get_family
from anyblock.modeling.heterogeneous import heterogeneous
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

pytestmark = [pytest.mark.shared, pytest.mark.slow, pytest.mark.usefixtures("auto_classes")]
IDS = torch.randint(0, 2048, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(shared_dir: Path) -> Path:
    return shared_dir / "models" / "tiny-qwen3moe-wt2"


@pytest.fixture
def text(shared_dir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(
        (shared_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:120_000], encoding="utf-8"
    )
    return path


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


def test_a_converted_model_is_the_stock_one(model: Path, tmp_path: Path) -> None:
    """Tensors keep their names, one for each expert, and are put together by transformers' own conversion."""
    converted = SubblockCheckpoint.open(convert_model(model, tmp_path / "teacher"))
    stored = {name: tensor for group in converted.groups for name, tensor in converted.load(group).items()}
    source = load_file(model / "model.safetensors")
    assert stored.keys() == source.keys()
    assert "model.layers.0.mlp.experts.7.gate_proj.weight" in stored
    assert all(torch.equal(stored[name], tensor) for name, tensor in source.items())
    stock = logits(AutoModelForCausalLM.from_pretrained(model))
    assert torch.equal(logits(load_model(converted.path)), stock)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(converted.path)), stock)


def test_a_child_keeps_its_budget_and_stays_near_its_teacher(model: Path, text: Path, tmp_path: Path) -> None:
    config = load_config(
        None,
        [],
        {
            "model": str(model),
            "output": str(tmp_path / "child"),
            "device": "cpu",
            "data": {
                "path": str(text),
                "block_size": 128,
                "calibration_tokens": 4096,
                "scoring_tokens": 1024,
                "evaluation_tokens": 4096,
                "batch_size": 8,
            },
            "pruning": {
                "experts_removal": {"sizes": [4, 6]},
                "expert_intermediate": {"sizes": [96]},
                "kv_heads": {"sizes": [1]},
            },
            "search": {"budget": {"params": "0.8x", "experts": "0.9x", "kv_heads": "0.9x"}, "length": 512},
        },
    )
    result = compress(config)
    child = result.child
    loaded = load_model(child.path)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == result.solution.costs["params"] <= 0.8 * 6.3e6
    experts = [block.ffn.moe.num_local_experts if block.ffn.moe else 0 for block in child.block_configs]
    assert sum(experts) == result.solution.costs["experts"] <= 0.9 * 48
    with heterogeneous(get_family("qwen3_moe"), child.block_configs):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(child.path)), logits(loaded))
    found = evaluate(child.path, data=text, teacher=model, block_size=128, max_tokens=4096)
    assert found.teacher is not None
    assert found.kl_per_token is not None
    assert 3.5 < found.teacher.loss < 4.5
    assert found.child.loss < found.teacher.loss + 0.1
    assert found.kl_per_token < 0.1
