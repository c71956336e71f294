"""A whole run with a smaller hidden size, for every adapter that declares it: the child of the files is the narrower one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import get_family, load_model
from anyblock.config import RunConfig
from anyblock.family import ModelFamily
from anyblock.pipeline.compress import compress
from anyblock.plugins import PluginRegistry
from anyblock_conformance.tiny import save_tiny

FAMILIES = sorted(PluginRegistry.discover().model_types)


def narrow_to(family: ModelFamily) -> int:
    """Three quarters of the tiny model's hidden size."""
    return int(family.language_model_config(family.conformance_config()).hidden_size) * 3 // 4


@pytest.mark.parametrize("name", FAMILIES)
def test_compress_narrows_the_whole_model(name: str, tmp_path: Path) -> None:
    """Costs, config, kept channels and both ways of loading; that pruning is exact is in the conformance suite."""
    family = get_family(name)
    if not family.supports("hidden_size"):
        pytest.skip(f"{name} does not declare hidden_size")
    config = family.conformance_config()
    source = save_tiny(config, tmp_path / "teacher")
    model = load_model(source)
    tokens = torch.randint(3, config.get_text_config().vocab_size, (400,))
    (tmp_path / "text.txt").write_text(
        "\n".join(" ".join(f"w{token}" for token in row) for row in tokens.reshape(-1, 20).tolist())
    )
    size = narrow_to(family)
    result = compress(run(tmp_path, size))
    child, usual = load_model(result.child.path), load_model(result.child.path, attn_implementation="eager")
    counted, before = parameters(child), parameters(model)
    assert result.summary.costs is not None
    assert result.summary.costs["params"] == counted < before
    text = family.language_model_config(child.config)
    assert text.hidden_size == size
    ids = tokens[:32].reshape(2, 16)
    with torch.no_grad():
        logits = child(ids).logits
        torch.testing.assert_close(usual(ids).logits, logits, rtol=1e-3, atol=1e-4)
        long = child.generate(ids[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
        uncached = child.generate(ids[:1], max_new_tokens=4, do_sample=False, pad_token_id=0, use_cache=False)
    assert torch.equal(long, uncached)
    kept = json.loads((result.child.path / "anyblock.json").read_text())["kept_units"]["model"]["units"]
    stored, whole = child.get_input_embeddings().weight, model.get_input_embeddings().weight
    assert torch.equal(stored, whole[:, kept].to(stored.dtype))


def parameters(model: Any) -> int:
    """Count what a checkpoint stores, a tied head once."""
    return sum(tensor.numel() for tensor in {id(t): t for t in model.state_dict(keep_vars=True).values()}.values())


def run(folder: Path, size: int) -> RunConfig:
    """Return a run in which nothing else is pruned."""
    settings: dict[str, Any] = {
        "model": str(folder / "teacher"),
        "output": str(folder / "child"),
        "device": "cpu",
        "data": {
            "path": str(folder / "text.txt"),
            "block_size": 16,
            "calibration_tokens": 128,
            "scoring_tokens": 32,
            "evaluation_tokens": 32,
        },
        "pruning": {
            "hidden_size": {"sizes": [size]},
            "ffn": {"sizes": [], "no_op": False},
            "attention": {"no_op": False},
        },
        "search": {"budget": {"params": "0.95x"}, "length": 32, "generated": 8},
    }
    return RunConfig.model_validate(settings)
