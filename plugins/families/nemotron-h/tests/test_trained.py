"""A small trained model, from its files to a child of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import compress, convert_model, evaluate, get_family, load_model
from anyblock.config import load_config
from anyblock.modeling.heterogeneous import heterogeneous
from transformers import AutoModelForCausalLM

pytestmark = [pytest.mark.shared, pytest.mark.slow, pytest.mark.usefixtures("auto_classes")]
IDS = torch.randint(0, 2048, (2, 100), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


def test_a_child_keeps_its_budget_and_stays_near_its_teacher(shared_dir: Path, tmp_path: Path) -> None:
    model, text = shared_dir / "models" / "tiny-nemotronh-wt2", tmp_path / "text.txt"
    words = (shared_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")
    text.write_text(words[:120_000], encoding="utf-8")
    teacher = load_model(convert_model(model, tmp_path / "teacher"))
    assert torch.equal(logits(teacher), logits(AutoModelForCausalLM.from_pretrained(model)))
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
                "ffn": {"sizes": [256]},
                "experts_removal": {"sizes": [4, 6], "hook": "NemotronHRemoveExpertsIndependentHook"},
                "kv_heads": {"sizes": [1]},
                "mamba_heads": {"sizes": [4, 6]},
            },
            "search": {"budget": {"params": "0.8x", "kv_memory": "0.8x"}, "length": 512, "refine_rounds": 0},
        },
    )
    result = compress(config)
    child, costs = result.child, result.solution.costs
    loaded = load_model(child.path)
    counted, own = (sum(t.numel() for t in m.state_dict().values()) for m in (loaded, teacher))
    assert counted == costs["params"] <= 0.8 * own
    with heterogeneous(get_family("nemotron_h"), child.block_configs):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(child.path)), logits(loaded))
    found = evaluate(child.path, data=text, teacher=model, block_size=128, max_tokens=2048)
    assert found.teacher is not None
    assert 3.3 < found.teacher.loss < 4.5
    assert found.child.loss < found.teacher.loss + 1.0
    prompt = IDS[:1, :8]
    tokens = [loaded.generate(prompt, max_new_tokens=8, do_sample=False, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*tokens)
