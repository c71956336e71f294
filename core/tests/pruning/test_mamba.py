"""Removing heads of a Mamba-2 mixer, proved on transformers' own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MambaConfig
from anyblock.errors import CheckpointError, UsageError
from anyblock.pruning.layouts import mamba_mixins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import NemotronHConfig
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer

MIXIN = mamba_mixins("layers.{layer_idx}")["mamba_heads"]
PREFIX = "layers.3.mixer."
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # the mixer computes its scan in float32
CONFIG = SimpleNamespace(n_groups=2)
BLOCK = BlockConfig(
    attention=AttentionConfig(mamba=MambaConfig(state_dim=5, num_heads=6, head_dim=4, num_groups=2)),
    ffn=FFNConfig(no_op=True),
)


def mixer(heads: int, *, bias: bool = True, epsilon: float = 1e-12) -> Any:
    """A Mamba-2 mixer of transformers with this many heads."""
    config = NemotronHConfig(
        hidden_size=16,
        layers_block_type=["linear_attention"],
        mamba_num_heads=heads,
        mamba_head_dim=4,
        ssm_state_size=5,
        n_groups=2,
        chunk_size=8,
        use_bias=bias,
        use_conv_bias=bias,
        layer_norm_epsilon=epsilon,
    )
    return NemotronHMamba2Mixer(config, layer_idx=0).double().eval()


@torch.no_grad()
def run(heads: int, tensors: dict[str, torch.Tensor], *, bias: bool = True, epsilon: float = 1e-12) -> torch.Tensor:
    """What a mixer with these tensors, by checkpoint name, gives for some inputs."""
    module = mixer(heads, bias=bias, epsilon=epsilon)
    module.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()})
    return module(torch.randn(2, 11, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(7)))


def teacher(seed: int, *, bias: bool = True) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        own = mixer(6, bias=bias).state_dict()
        return {
            PREFIX + name: tensor + torch.randn(tensor.shape, dtype=tensor.dtype) * 0.5 for name, tensor in own.items()
        }


@settings(deadline=None, derandomize=True, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.permutations(range(6)), st.sampled_from([2, 4]), st.booleans())
def test_a_child_is_the_teacher_with_the_other_heads_silent(seed, order, size, bias):
    tensors = teacher(seed, bias=bias)
    best_first = MIXIN.sort(3, tensors, BLOCK, torch.tensor(order), CONFIG)
    torch.testing.assert_close(run(6, best_first, bias=bias), run(6, tensors, bias=bias), **CLOSE)
    child = MIXIN.resize(BLOCK, size, CONFIG)
    assert child.attention.mamba == replace(BLOCK.attention.mamba, num_heads=size)
    narrow = MIXIN.narrow(3, best_first, BLOCK, child, CONFIG)
    masked = MIXIN.mask(3, best_first, BLOCK, child, CONFIG)
    torch.testing.assert_close(run(size, narrow, bias=bias), run(6, masked, bias=bias), **CLOSE)
    # The heads that stay are the first of each half of the order.
    kept = [head for half in (range(3), range(3, 6)) for head in [h for h in order if h in half][: size // 2]]
    assert narrow[f"{PREFIX}dt_bias"].tolist() == tensors[f"{PREFIX}dt_bias"][kept].tolist()


def test_epsilon_is_all_that_a_child_and_the_masked_teacher_differ_by():
    best_first = teacher(0)
    child = MIXIN.resize(BLOCK, 2, CONFIG)
    narrow, masked = (f(3, best_first, BLOCK, child, CONFIG) for f in (MIXIN.narrow, MIXIN.mask))
    differences = [
        (run(2, narrow, epsilon=epsilon) - run(6, masked, epsilon=epsilon)).abs().max() for epsilon in (1e-2, 1e-4, 0.0)
    ]
    assert differences[0] > differences[1] > differences[2]
    assert differences[2] < 1e-5


def test_sizes_and_blocks_that_do_not_fit_are_refused():
    assert list(MIXIN.legal_sizes(BLOCK, CONFIG)) == [2, 4, 6]
    with pytest.raises(UsageError, match="a size of 3 is not possible") as caught:
        MIXIN.resize(BLOCK, 3, CONFIG)
    assert caught.value.expected == "a multiple of 2 up to 6"
    attention = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(no_op=True))
    assert not MIXIN.applies_to(attention)
    with pytest.raises(UsageError, match="has no Mamba"):
        MIXIN.size(attention)
    tensors = teacher(0)
    del tensors[f"{PREFIX}A_log"]
    with pytest.raises(CheckpointError, match="A_log"):
        MIXIN.sort(3, tensors, BLOCK, torch.arange(6), CONFIG)
