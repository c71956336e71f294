"""Tiny random Llamas with every kind of removed and smaller half, for the tests of the GGUF formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.modeling.skeleton import load_hf_config, model_class
from anyblock.realize.realize import realize
from transformers import LlamaConfig, MistralConfig

BOTH = ("attention", "ffn")
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "whole": {},
    "first attention": {"removed": {0: ("attention",)}},
    "first ffn": {"removed": {0: ("ffn",)}},
    "first layer": {"removed": {0: BOTH}},
    "middle attention": {"removed": {2: ("attention",)}},
    "middle ffn": {"removed": {2: ("ffn",)}},
    "middle layer": {"removed": {1: BOTH}},
    "last attention": {"removed": {3: ("attention",)}},
    "last ffn": {"removed": {3: ("ffn",)}},
    "last layer": {"removed": {3: BOTH}},
    "nearly all": {"removed": {0: BOTH, 1: ("ffn",), 2: BOTH, 3: BOTH}},
    "smaller halves": {"kv_heads": {1: 1, 2: 1}, "query_groups": {0: 1}, "ffn_intermediate": {0: 24, 1: 48, 3: 40}},
    "all at once": {
        "removed": {0: ("attention",), 2: ("ffn",), 3: BOTH},
        "kv_heads": {1: 1},
        "ffn_intermediate": {0: 24},
    },
    "biases": {
        "removed": {0: ("attention",), 1: ("ffn",)},
        "config": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    },
    "llama3": {"removed": {1: ("ffn",)}, "config": {"rope_parameters": LLAMA3}},
    "linear": {"config": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}},
    "wide heads": {"removed": {0: BOTH}, "config": {"head_dim": 16}},
    "mistral": {"removed": {2: ("attention",)}, "class": MistralConfig, "config": {"sliding_window": None}},
}
"""What differs from a Llama of 4 layers, 4 query heads, 2 key-value heads and 64 channels."""


def child_of(folder: Path, case: dict[str, Any], tokenizer: Path | None = None) -> Path:
    """Write the teacher and the child of a case below `folder`; returns the child's path."""
    sizes: dict[str, Any] = {
        "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": False,
    }  # fmt: skip
    config = case.get("class", LlamaConfig)(**sizes | case.get("config", {}))
    pytest.importorskip(f"anyblock_{config.model_type}")
    torch.manual_seed(0)
    model = model_class(config)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.25 + (0.5 if parameter.dim() == 1 else 0.0))
    model.half().save_pretrained(folder / "source")  # values that F16 holds exactly
    if tokenizer is not None:
        for file in tokenizer.glob("tokenizer*"):
            shutil.copy(file, folder / "source")
    teacher = SubblockCheckpoint.open(convert_model(folder / "source", folder / "teacher"))
    block = teacher.block_configs[0]
    chosen = [
        Candidate(layer, half, NO_OP, 0, block.with_half(half, no_op=True))
        for layer, halves in case.get("removed", {}).items()
        for half in halves
    ]
    orders: dict[Any, torch.Tensor] = {}
    smaller = {
        "kv_heads": lambda size: block.with_attention(num_key_value_heads=size),
        "query_groups": lambda size: block.with_attention(num_key_value_heads=size, num_attention_heads=2 * size),
        "ffn_intermediate": lambda size: block.with_ffn(intermediate_size=size),
    }
    for kind, make in smaller.items():
        half, units = ("ffn", 64) if kind == "ffn_intermediate" else ("attention", 2)
        for layer, size in case.get(kind, {}).items():
            chosen.append(Candidate(layer, half, kind, size, make(size)))
            orders[layer, kind] = torch.randperm(units, generator=torch.Generator().manual_seed(layer))
    weights = CandidateWeights(teacher, get_family(config.model_type), load_hf_config(teacher.path), orders)
    return realize(teacher, chosen, weights, folder / "child")


def tokenizer_like(source: Path, target: Path, **changes: Any) -> Path:
    """Write a tokenizer that differs from that in `source` in parts of its tokenizer.json."""
    target.mkdir()
    shutil.copy(source / "tokenizer_config.json", target)
    data = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    data["model"] |= changes.pop("model", {})
    (target / "tokenizer.json").write_text(json.dumps(data | changes), encoding="utf-8")
    return target
