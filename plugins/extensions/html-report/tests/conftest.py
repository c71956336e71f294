"""Runs to show: small real ones, made once per session, and a large one with invented numbers."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from anyblock import compress, get_family
from anyblock.config.load import load_config
from anyblock_conformance.tiny import save_tiny
from anyblock_tests.fixtures import TRAINED

MakeRun = Callable[[str], Path]
WORDS = ("tree", "house", "river", "walks", "under", "the", "a", "old")


def make_run(
    folder: Path, model: Path, text: Path, *, distilled: bool, types: Sequence[str] = (), **pruning: Any
) -> Path:
    """Compress a tiny model with the real pipeline and return its run folder."""
    settings = {
        "model": str(model),
        "output": str(folder / "child"),
        "data": {
            "path": str(text),
            "block_size": 32,
            "calibration_tokens": 512,
            "scoring_tokens": 128,
            "evaluation_tokens": 256,
        },
        "pruning": pruning,
        "search": {"budget": {"bytes": "0.4x"} if types else {"params": "0.8x"}, "refine_rounds": 1},
        "storage": {"types": list(types)},
        "distillation": {"blocks": {"enabled": distilled, "epochs": 1}},
        "device": "cpu",
    }
    path = folder / "given.yaml"
    path.write_text(json.dumps(settings))
    return compress(load_config(path, [])).run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind of model: dense, sparse, hybrid of Mamba, attention, experts and dense FFNs, and with vision."""
    folder = tmp_path_factory.mktemp("runs")
    chance = random.Random(0)
    words, numbers = folder / "words.txt", folder / "numbers.txt"
    words.write_text("\n".join(" ".join(chance.choices(WORDS, k=9)) + "." for _ in range(150)))
    numbers.write_text("\n".join(str(chance.randrange(10**7)) for _ in range(400)))
    made = {}
    for name, model_type, text, pruning in (
        ("dense", "", words, {"ffn": {"sizes": [0.5]}, "kv_heads": {"sizes": [1]}}),
        ("sparse", "mixtral", numbers, {"experts_removal": {"sizes": [0.5]}}),
        ("hybrid", "nemotron_h", numbers, {"ffn": {"sizes": [0.5]}, "mamba_heads": {"sizes": [0.5]}}),
        ("vision", "qwen3_vl", numbers, {"ffn": {"sizes": [0.5]}, "kv_heads": {"sizes": [1]}}),
    ):
        here = folder / name
        here.mkdir()
        model = save_tiny(get_family(model_type).conformance_config(), here / "model") if model_type else TRAINED
        made[name] = make_run(here, model, text, distilled=name == "dense", **pruning)
    return made


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that searched storage types as well."""
    pytest.importorskip("anyblock_gguf")
    folder = tmp_path_factory.mktemp("stored")
    text = folder / "text.txt"
    text.write_text("\n".join(f"the {one} walks under the old {other}." for one in WORDS for other in WORDS))
    return make_run(folder, TRAINED, text, distilled=False, types=("q8_0", "q5_0", "q4_0"), ffn={"sizes": [0.5]})


@pytest.fixture
def dense(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the dense run, to be changed."""
    return Path(shutil.copytree(runs["dense"], tmp_path / "dense.run"))


def invented_run(folder: Path, layers: int, candidates: int) -> Path:
    """Write a run folder in the pipeline's form with so many layers, and so many candidates of each layer."""
    chance = random.Random(0)
    head, width = 128, 28672
    block = {
        "attention": {"no_op": False, "num_key_value_heads": 32, "mamba": None},
        "ffn": {"no_op": False, "intermediate_size": width, "moe": None},
    }
    per_half = candidates // 2
    rows, scores, choices = [], {}, {}
    for layer in range(layers):
        for half, kind, most, size in (
            ("attention", "kv_heads", 32, head * 8192),
            ("ffn", "ffn_intermediate", width, 3 * 8192),
        ):
            key = "num_key_value_heads" if half == "attention" else "intermediate_size"
            for index in range(per_half):
                kept = most - index if half == "attention" else most * (per_half - 1 - index) // (per_half - 1)
                label = "teacher" if index == 0 else "no_op" if index == per_half - 1 else f"{kind}={kept}"
                own = {"no_op": True} if label == "no_op" else {**block[half], key: kept}
                share = 1 - index / (per_half - 1)
                rows.append(
                    {
                        "candidate": {
                            "layer": layer,
                            "half": half,
                            "kind": label.partition("=")[0],
                            "size": 0 if index in (0, per_half - 1) else kept,
                            "block_config": {**block, half: own},
                        },
                        "costs": {
                            "params": share * size * most,
                            "weight_memory": 2 * share * size * most,
                            "kv_memory": share * 2**27 if half == "attention" else 0.0,
                        },
                    }
                )
                if index:
                    depth = math.exp(-(((layer - layers * 0.7) / (layers * 0.3)) ** 2))
                    scores[f"block_{layer}_{half}:{label}"] = (
                        (1 - share) ** 2 * (1.2 - depth) * chance.uniform(0.01, 0.2)
                    )
            mine = [r["candidate"] for r in rows[-per_half:]]
            chosen = chance.choice([mine[0], mine[0], *mine])
            kind = chosen["kind"]
            choices[f"block_{layer}_{half}"] = f"{kind}={chosen['size']}" if chosen["size"] else kind
    total = sum(r["costs"]["params"] for r in rows if r["candidate"]["kind"] == "teacher")
    fixed = {"params": 2e9, "weight_memory": 4e9, "kv_memory": 0.0}
    reference = {"params": total + 2e9, "weight_memory": 2 * total + 4e9, "kv_memory": layers * 2.0**27}
    blocks = [block] * layers
    costs = {name: value * 0.7 for name, value in reference.items()}
    files: dict[str, Any] = {
        "00-candidates/candidates.json": {"blocks": blocks, "candidates": rows, "fixed": fixed, "reference": reference},
        "06-scores/scores.json": scores,
        "07-search/solutions.json": [{"choices": choices, "score": 0.4, "costs": costs}],
        "10-child/child.json": {},
    }
    for name, content in files.items():
        path = folder / "stages" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
        (path.parent / "stage.json").write_text(json.dumps({"seconds": 1.0, "peak_memory": 1}))
    (folder / "run.yaml").write_text("model: invented\noutput: child\n")
    child = [dict(b) for b in blocks]
    for row in rows:
        c = row["candidate"]
        label = f"{c['kind']}={c['size']}" if c["size"] else c["kind"]
        if choices[f"block_{c['layer']}_{c['half']}"] == label:
            child[c["layer"]] = {**child[c["layer"]], c["half"]: c["block_config"][c["half"]]}
    stages = [
        {"name": n, "seconds": 9.0, "reused": False, "memory": 2**33, "quality": ""} for n in ("scores", "search")
    ]
    quality = {
        "teacher": {"perplexity": 5.0},
        "child": {"perplexity": 5.6},
        "kl_per_token": 0.12,
        "top1": 0.9,
        "top5": 0.99,
    }
    summary = {
        "command": "anyblock compress invented child",
        "teacher": "invented",
        "model_type": "llama",
        "block_configs": child,
        "teacher_block_configs": blocks,
        "budgets": [{"cost": "params", "used": costs["params"], "upper": costs["params"], "lower": None}],
        "costs": costs,
        "teacher_costs": reference,
        "stages": stages,
        "quality": quality,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 layers, 60 candidates each."""
    folder = tmp_path_factory.mktemp("large") / "large.run"
    folder.mkdir()
    return invented_run(folder, 80, 60)


@pytest.fixture(scope="session")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 layers, 60 candidates each: more than fits into a page."""
    return invented_run(tmp_path_factory.mktemp("huge"), 300, 60)
