"""A child of the trained Llama in `assets`, with halves that are removed and halves that are smaller."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import convert_model, get_family
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.views import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize

ASSET = Path(__file__).parents[1] / "assets" / "tiny-llama"


@pytest.fixture(scope="session")
def trained_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained Llama as a subblock checkpoint."""
    return convert_model(ASSET, tmp_path_factory.mktemp("trained") / "teacher")


@pytest.fixture(scope="session")
def trained_child(trained_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layer 0 lacks its attention, 1 both halves, 2 and 5 their ffn; 3 has one kv head, 4 a narrow ffn."""
    teacher, family = SubblockCheckpoint.open(trained_dir), get_family("llama")
    block = teacher.block_configs[0]
    chosen = [
        Candidate(0, "attention", NO_OP, 0, block.with_attention(no_op=True)),
        Candidate(1, "attention", NO_OP, 0, block.with_attention(no_op=True)),
        *(Candidate(layer, "ffn", NO_OP, 0, block.with_ffn(no_op=True)) for layer in (1, 2, 5)),
        Candidate(3, "attention", "kv_heads", 1, block.with_attention(num_key_value_heads=1)),
        Candidate(4, "ffn", "ffn_intermediate", 96, block.with_ffn(intermediate_size=96)),
    ]
    orders = {(3, "kv_heads"): torch.arange(3), (4, "ffn_intermediate"): torch.arange(288)}
    weights = CandidateWeights(teacher, family, load_hf_config(trained_dir), orders)
    return realize(teacher, chosen, weights, tmp_path_factory.mktemp("trained") / "child")
