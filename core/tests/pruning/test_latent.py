"""Removing heads of latent attention, proved on transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import CheckpointError, UsageError
from anyblock.importance.statistics import Moments
from anyblock.pruning.layouts import latent_attention_mixins
from anyblock.pruning.repair_child import repair_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

MIXIN = latent_attention_mixins("layers.{layer_idx}")["query_groups"]
PREFIX = "layers.0.self_attn."
BLOCK = BlockConfig(attention=AttentionConfig(num_attention_heads=5), ffn=FFNConfig(no_op=True))
X = torch.randn(2, 7, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def config(heads: int, rank: int | None) -> Any:
    made = DeepseekV3Config(
        hidden_size=20,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        q_lora_rank=rank,
        kv_lora_rank=6,
        qk_nope_head_dim=3,
        qk_rope_head_dim=2,
        v_head_dim=4,
        attention_bias=True,
    )
    made._attn_implementation = "eager"
    return made


def attention(heads: int, rank: int | None, tensors: dict[str, torch.Tensor]) -> Any:
    """An attention of transformers with this many heads and these tensors, by checkpoint name."""
    module = DeepseekV3Attention(config(heads, rank), layer_idx=0).double().eval()
    module.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()})
    return module


@torch.no_grad()
def run(heads: int, rank: int | None, tensors: dict[str, torch.Tensor], *watched: Any) -> torch.Tensor:
    module = attention(heads, rank, tensors)
    for make in watched:
        make(module.o_proj)
    positions = DeepseekV3RotaryEmbedding(module.config)(X, torch.arange(7).unsqueeze(0))
    return module(X, positions, None)[0]


def teacher(seed: int, rank: int | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = DeepseekV3Attention(config(5, rank), layer_idx=0).state_dict()
    return {PREFIX + n: torch.randn(t.shape, dtype=torch.float64, generator=generator) for n, t in state.items()}


@settings(deadline=None, derandomize=True, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.permutations(range(5)), st.integers(1, 4), st.sampled_from([None, 7]))
def test_a_child_is_the_teacher_with_the_other_heads_silent(seed, order, size, rank):
    text, tensors = config(5, rank), teacher(seed, rank)
    best_first = MIXIN.sort(0, tensors, BLOCK, torch.tensor(order), text)
    torch.testing.assert_close(run(5, rank, best_first), run(5, rank, tensors))
    child = MIXIN.resize(BLOCK, size, text)
    narrow, masked = (change(0, best_first, BLOCK, child, text) for change in (MIXIN.narrow, MIXIN.mask))
    torch.testing.assert_close(run(size, rank, narrow), run(5, rank, masked))
    assert not torch.allclose(run(5, rank, masked), run(5, rank, tensors))
    # Views of the sorted tensors, none of which the shared latent map or the biases are cut from.
    assert narrow[f"{PREFIX}kv_b_proj.weight"].data_ptr() == best_first[f"{PREFIX}kv_b_proj.weight"].data_ptr()
    assert narrow[f"{PREFIX}kv_a_proj_with_mqa.weight"] is tensors[f"{PREFIX}kv_a_proj_with_mqa.weight"]
    assert narrow[f"{PREFIX}o_proj.bias"] is tensors[f"{PREFIX}o_proj.bias"]


def test_what_a_removed_head_wrote_is_made_up_for_where_others_write_the_same():
    """The last head is a copy of the first: without it the repair doubles what the first one writes."""
    text, tensors = config(5, None), teacher(1, None)
    for name, width in (("q_proj", 5), ("kv_b_proj", 7)):
        rows = tensors[f"{PREFIX}{name}.weight"].view(5, width, -1)
        rows[4] = rows[0]
    child = MIXIN.resize(BLOCK, 4, text)
    seen: list[torch.Tensor] = []
    expected = run(5, None, tensors, lambda module: module.register_forward_hook(lambda _, x, __: seen.append(x[0])))
    inputs = seen[0].reshape(-1, 20)
    moments = Moments(inputs.t() @ inputs, len(inputs))
    repaired, _ = repair_child(MIXIN, 0, tensors, BLOCK, child, text, torch.arange(5), moments, moments, ridges=(1e-9,))
    plain = MIXIN.narrow(0, tensors, BLOCK, child, text)
    errors = [(run(4, None, part) - expected).abs().max() for part in (plain, repaired)]
    assert errors[1] < 1e-4 < errors[0]


def test_blocks_and_tensors_that_do_not_fit_are_refused():
    plain = BlockConfig(attention=AttentionConfig(), ffn=FFNConfig(no_op=True))
    assert not MIXIN.applies_to(plain)
    with pytest.raises(UsageError, match="states no heads"):
        MIXIN.size(plain)
    with pytest.raises(UsageError, match="a size of 6 is not possible"):
        MIXIN.resize(BLOCK, 6, config(5, None))
    tensors = teacher(0, None)
    del tensors[f"{PREFIX}kv_b_proj.weight"]
    with pytest.raises(CheckpointError, match="kv_b_proj"):
        MIXIN.sort(0, tensors, BLOCK, torch.arange(5), config(5, None))
