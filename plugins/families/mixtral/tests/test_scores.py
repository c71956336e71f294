"""Experts are kept by the scores of their own layer."""

from __future__ import annotations

import json
from pathlib import Path

from anyblock.config import load_config
from anyblock.family import get_family
from anyblock.pipeline.compress import compress
from anyblock.run.run_folder import RunFolder
from anyblock_conformance.tiny import save_tiny
from safetensors.torch import load_file


def test_every_layer_keeps_the_experts_that_its_own_router_prefers(tmp_path: Path) -> None:
    """The reference, where it reads scores from a file, keeps the experts of one list in all layers (its defect 5)."""
    model = save_tiny(get_family("mixtral").conformance_config(), tmp_path / "model")
    (tmp_path / "text.txt").write_text("\n".join(" ".join(f"w{(i * j) % 97}" for j in range(20)) for i in range(40)))
    experts = {"experts_removal": {"sizes": [2], "hook": "RankedChoiceVotingHook"}}
    config = load_config(
        None,
        [
            "pruning.ffn.no_op=false",
            "pruning.attention.no_op=false",
            f"pruning={json.dumps(experts)}",
            "search.budget={experts: 6}",
            "search.refine_rounds=0",
            "evaluation.enabled=false",
        ],
        {
            "model": str(model),
            "output": str(tmp_path / "child"),
            "data": {
                "path": str(tmp_path / "text.txt"),
                "block_size": 16,
                "calibration_tokens": 256,
                "scoring_tokens": 64,
            },
        },
    )
    result = compress(config)
    kept = json.loads((result.child.path / "anyblock.json").read_text())["kept_units"]
    scores = load_file(RunFolder(result.run).result("importance", "scores.safetensors"))
    assert len(kept) == 3
    for group, found in kept.items():
        own = scores[f"{group.split('_')[1]}|experts_removal|RankedChoiceVotingHook"]
        assert found["units"] == (-own).argsort(stable=True)[:2].tolist()
    assert len({tuple(found["units"]) for found in kept.values()}) > 1, "layers that agree prove nothing"
