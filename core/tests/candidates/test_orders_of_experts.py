"""Candidates whose experts each have their own order of channels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anyblock.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.views import CandidateWeights
from anyblock.errors import ExecutionError
from anyblock.pruning.expert_channels import ExpertIntermediateLayerDescriptor, ExpertIntermediatePruningMixIn

KIND = "expert_intermediate"
EXPERTS, WIDTH, HIDDEN, KEPT = 2, 16, 4, 8
BLOCK = BlockConfig(
    attention=AttentionConfig(no_op=True),
    ffn=FFNConfig(moe=MoEConfig(num_local_experts=EXPERTS, num_experts_per_tok=1, expert_intermediate_dim=WIDTH)),
)
CHILD = Candidate(0, "ffn", KIND, KEPT, BLOCK.with_moe(expert_intermediate_dim=KEPT))


def weights_with(order: torch.Tensor) -> CandidateWeights:
    """Every weight of channel `c` has the value `c`."""
    rows = torch.arange(WIDTH, dtype=torch.float32).unsqueeze(1).expand(WIDTH, HIDDEN)
    prefix = "model.layers.0.mlp.experts"
    tensors = {}
    for expert in range(EXPERTS):
        tensors |= {f"{prefix}.{expert}.{name}_proj.weight": rows.clone() for name in ("gate", "up")}
        tensors[f"{prefix}.{expert}.down_proj.weight"] = rows.t().clone()
    checkpoint = SimpleNamespace(block_configs=[BLOCK], load=lambda _: tensors)
    mixin = ExpertIntermediatePruningMixIn(ExpertIntermediateLayerDescriptor())
    family = SimpleNamespace(pruning_mixins=lambda: {KIND: mixin})
    return CandidateWeights(checkpoint, family, SimpleNamespace(), {(0, KIND): order})


def test_every_expert_keeps_its_own_best_channels():
    order = torch.stack(
        [torch.randperm(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in range(EXPERTS)]
    )
    weights = weights_with(order)
    kept = order[:, :KEPT].tolist()
    assert weights.kept_units(CHILD) == kept
    found = weights.subblock(CHILD)
    for expert in range(EXPERTS):
        assert found[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"][:, 0].tolist() == kept[expert]
        assert found[f"model.layers.0.mlp.experts.{expert}.down_proj.weight"][0].tolist() == kept[expert]


@pytest.mark.parametrize(
    "order", [torch.zeros(EXPERTS, WIDTH, dtype=torch.int64), torch.arange(WIDTH - 1).repeat(EXPERTS, 1)]
)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ExecutionError, match="no permutation of 16 units"):
        weights_with(order).subblock(CHILD)
