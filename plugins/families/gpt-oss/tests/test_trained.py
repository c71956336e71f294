"""A small trained model, from its files to a child of it, and back to MXFP4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from anyblock import compress, convert_model, evaluate, get_family, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import load_config
from anyblock.export.exported_child import ExportedChild
from anyblock.modeling.heterogeneous import heterogeneous
from transformers import AutoModelForCausalLM

pytestmark = [pytest.mark.shared, pytest.mark.slow, pytest.mark.usefixtures("auto_classes")]
IDS = torch.randint(0, 2048, (2, 200), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


def test_a_child_keeps_its_budget_and_stays_near_its_teacher(shared_dir: Path, tmp_path: Path) -> None:
    model, text = shared_dir / "models" / "tiny-gptoss-wt2", tmp_path / "text.txt"
    words = (shared_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")
    text.write_text(words[:120_000], encoding="utf-8")
    teacher = convert_model(model, tmp_path / "teacher")
    assert torch.equal(logits(load_model(teacher)), logits(AutoModelForCausalLM.from_pretrained(model)))
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
                "calibration_tokens": 2048,
                "scoring_tokens": 1024,
                "evaluation_tokens": 2048,
                "batch_size": 8,
            },
            "pruning": {
                "experts_removal": {"sizes": [4, 6]},
                "expert_intermediate": {"sizes": [96]},
                "kv_heads": {"sizes": [1]},
            },
            "search": {
                "budget": {"params": "0.8x", "experts": "0.9x", "kv_heads": "0.9x"},
                "length": 512,
                "refine_rounds": 0,
            },
        },
    )
    result = compress(config)
    child, costs = result.child, result.solution.costs
    loaded = load_model(child.path)
    counted = sum(parameter.numel() for parameter in loaded.parameters())
    assert counted == costs["params"] <= 0.8 * sum(p.numel() for p in load_model(teacher).parameters())
    assert costs["experts"] <= 0.9 * 48
    family = get_family("gpt_oss")
    with heterogeneous(family, child.block_configs):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(child.path)), logits(loaded))
    found = evaluate(child.path, data=text, teacher=model, block_size=128, max_tokens=4096)
    assert found.teacher is not None
    assert found.kl_per_token is not None
    assert 3.5 < found.teacher.loss < 4.5
    assert found.child.loss < found.teacher.loss + 0.1
    assert found.kl_per_token < 0.1

    # Quantized to four bits it is still that model: worse than before by much less than by being compressed.
    form, out = family.export_formats()["mxfp4"](), tmp_path / "mxfp4"
    assert form.obstacles(ExportedChild(child, family)) == []
    out.mkdir()
    form.write(ExportedChild(child, family), out)
    assert json.loads((out / "anyblock.json").read_text())["kept_units"]
    sizes = [sum(file.stat().st_size for file in path.rglob("*.safetensors")) for path in (out, child.path)]
    assert sizes[0] < sizes[1] / 2
    again = SubblockCheckpoint.open(convert_model(out, tmp_path / "again"))
    assert evaluate(again.path, data=text, block_size=128, max_tokens=4096).child.loss < found.child.loss + 0.1
