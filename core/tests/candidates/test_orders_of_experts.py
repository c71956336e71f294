"""Candidates whose experts each have their own order of channels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.contract.hookspecs import hookimpl
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.errors import ExecutionError
from anyblock.family import ModelFamily
from anyblock.pruning.expert_channels import ExpertIntermediateLayerDescriptor, ExpertIntermediatePruningMixIn
from anyblock.pruning.experts import ExpertRemovalLayerDescriptor, ExpertRemovalPruningMixIn

KIND = "expert_intermediate"
EXPERTS, WIDTH, HIDDEN, KEPT = 2, 16, 4, 8
BLOCK = BlockConfig(
    attention=AttentionConfig(no_op=True),
    ffn=FFNConfig(moe=MoEConfig(num_local_experts=EXPERTS, num_experts_per_tok=1, expert_intermediate_dim=WIDTH)),
)
CHILD = Candidate(0, "ffn", KIND, KEPT, BLOCK.with_moe(expert_intermediate_dim=KEPT))


def family_with(kind: str, mixin: PruningMixIn) -> ModelFamily:
    """A family that can be made smaller in one way."""

    class Descriptor:
        @hookimpl
        def pruning_mixins(self) -> dict[str, PruningMixIn]:
            return {kind: mixin}

    return ModelFamily.from_descriptor(Descriptor, model_type="toy")


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
    family = family_with(KIND, mixin)
    return CandidateWeights(checkpoint, family, SimpleNamespace(), {(0, KIND): order})


def test_every_expert_keeps_its_own_best_channels():
    order = torch.stack(
        [torch.randperm(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in range(EXPERTS)]
    )
    weights = weights_with(order)
    kept = order[:, :KEPT].tolist()
    assert weights.of(CHILD).kept_units(CHILD) == kept
    found = weights.subblock(CHILD)
    for expert in range(EXPERTS):
        assert found[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"][:, 0].tolist() == kept[expert]
        assert found[f"model.layers.0.mlp.experts.{expert}.down_proj.weight"][0].tolist() == kept[expert]


@pytest.mark.parametrize(
    "order", [torch.zeros(EXPERTS, WIDTH, dtype=torch.int64), torch.arange(WIDTH - 1).repeat(EXPERTS, 1)]
)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ExecutionError, match="permutation of 16 units"):
        weights_with(order).subblock(CHILD)


def test_units_kept_of_groups_of_experts_are_those_of_every_group():
    kind, config = "experts_removal", SimpleNamespace(n_group=2, topk_group=1)
    moe = MoEConfig(num_local_experts=8, num_experts_per_tok=2, expert_intermediate_dim=WIDTH)
    block = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(moe=moe))
    prefix = "model.layers.0.mlp"
    tensors = {f"{prefix}.gate.weight": torch.arange(8.0).unsqueeze(1)}
    for expert in range(8):
        tensors[f"{prefix}.experts.{expert}.down_proj.weight"] = torch.full((1, 1), float(expert))
    checkpoint = SimpleNamespace(block_configs=[block], load=lambda _: tensors)
    layer = ExpertRemovalLayerDescriptor(expert_weights=("down_proj.weight",), groups_attribute="n_group")
    family = family_with(kind, ExpertRemovalPruningMixIn(layer))
    child = Candidate(0, "ffn", kind, 4, block.with_moe(num_local_experts=4))

    # The best four are of the second group, and each group keeps its own best two.
    orders = {(0, kind): torch.tensor([7, 4, 6, 5, 1, 3, 0, 2])}
    weights = CandidateWeights(checkpoint, family, config, orders)
    assert weights.of(child).kept_units(child) == [1, 3, 7, 4]
    assert weights.subblock(child)[f"{prefix}.gate.weight"].squeeze(1).tolist() == [1, 3, 7, 4]
    unsorted = CandidateWeights(checkpoint, family, config, {})
    assert unsorted.of(child).kept_units(child) == [0, 1, 4, 5]
    assert unsorted.subblock(child)[f"{prefix}.gate.weight"].squeeze(1).tolist() == [0, 1, 4, 5]
