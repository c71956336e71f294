"""Blocks of channels: the scores, and the weights that stay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import UsageError
from anyblock.importance import HookContext
from anyblock.pruning.layouts import dense_mixins
from anyblock_example_extension.blocks import FFNBlocksPruningMixIn, WandaBlockContributionHook
from torch import nn

BLOCK = BlockConfig(attention=AttentionConfig(num_key_value_heads=1), ffn=FFNConfig(intermediate_size=64))
MIXIN = FFNBlocksPruningMixIn(dense_mixins()["ffn_intermediate"].layer_descriptor)


def test_a_blocks_score_is_the_sum_of_its_channels():
    module, tokens = nn.Linear(64, 3).requires_grad_(False), torch.randn(2, 5, 64)
    hook = WandaBlockContributionHook(module, HookContext(SimpleNamespace(), BLOCK, 0, 1))
    handle = hook.attach()
    module(tokens)
    handle.remove()
    norms = tokens.reshape(-1, 64).norm(dim=0)
    each = [float(module.weight[:, channel].abs().sum() * norms[channel]) for channel in range(64)]
    expected = torch.tensor([sum(each[start : start + 16]) for start in range(0, 64, 16)])
    torch.testing.assert_close(hook.scores(), expected)


def test_whole_blocks_stay_and_the_child_is_the_teacher_without_the_others():
    prefix = "model.layers.0.mlp"
    tensors = {f"{prefix}.{name}_proj.weight": torch.randn(64, 8) for name in ("gate", "up")}
    tensors[f"{prefix}.down_proj.weight"] = torch.randn(8, 64)
    order, child = torch.tensor([2, 0, 3, 1]), BLOCK.with_ffn(intermediate_size=32)
    ordered = MIXIN.sort(0, tensors, BLOCK, order, SimpleNamespace())
    narrow = MIXIN.narrow(0, ordered, BLOCK, child, SimpleNamespace())
    kept = torch.cat([torch.arange(32, 48), torch.arange(16)])
    assert torch.equal(narrow[f"{prefix}.up_proj.weight"], tensors[f"{prefix}.up_proj.weight"][kept])
    assert torch.equal(narrow[f"{prefix}.down_proj.weight"], tensors[f"{prefix}.down_proj.weight"][:, kept])
    masked = MIXIN.mask(0, ordered, BLOCK, child, SimpleNamespace())

    def run(half: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        gate, up, down = (half[f"{prefix}.{name}_proj.weight"] for name in ("gate", "up", "down"))
        return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T

    x = torch.randn(5, 8)
    torch.testing.assert_close(run(narrow, x), run(masked, x))


def test_a_number_of_blocks_beyond_the_teachers_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="4") as caught:
        MIXIN.resize(BLOCK, 5, SimpleNamespace())
    assert "nearest possible size is 4" in caught.value.hint
    assert not MIXIN.applies_to(BLOCK.with_ffn(intermediate_size=63))
