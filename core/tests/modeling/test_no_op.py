"""Removed halves: the residual path, the parameters, and a cache that still advances."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from anyblock.modeling.linear_half import options_of
from anyblock.modeling.load import load_model
from anyblock.modeling.no_op import NoOpAttention, NoOpFFN
from anyblock_tests.children import child_without
from transformers import DynamicCache


@pytest.mark.parametrize("half", ["attention", "ffn"])
def test_a_removed_half_is_the_residual_path(teacher_dir: Path, tmp_path: Path, ids: torch.Tensor, half: str) -> None:
    model = load_model(child_without(teacher_dir, tmp_path / "child", **{half: {1}}))
    teacher = load_model(teacher_dir)
    with torch.no_grad():
        teacher.model.layers[1].register_parameter("unused", None)
        zero = torch.zeros_like
        branch = (
            teacher.model.layers[1].self_attn.o_proj if half == "attention" else teacher.model.layers[1].mlp.down_proj
        )
        branch.weight = torch.nn.Parameter(zero(branch.weight))
        branch.bias = torch.nn.Parameter(zero(branch.bias))
        assert torch.equal(model(ids).logits, teacher(ids).logits)


def test_a_removed_half_keeps_no_parameters(teacher_dir: Path, tmp_path: Path) -> None:
    model = load_model(child_without(teacher_dir, tmp_path / "child", attention={0}, ffn={0, 2}))
    assert not list(model.model.layers[0].parameters())
    assert {name.split(".")[0] for name, _ in model.model.layers[2].named_parameters()} == {
        "self_attn",
        "input_layernorm",
    }


@pytest.mark.parametrize("removed", [{i for i in range(3) if kept[i]} for kept in product([False, True], repeat=3)])
def test_cached_decoding_equals_a_full_forward(
    teacher_dir: Path, tmp_path: Path, ids: torch.Tensor, removed: set[int]
) -> None:
    model = load_model(child_without(teacher_dir, tmp_path / "child", attention=removed))
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        full = model(ids).logits
        parts = [model(ids[:, :9], past_key_values=cache, use_cache=True).logits]
        parts += [
            model(ids[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(9, ids.shape[1])
        ]
    assert cache.get_seq_length() == ids.shape[1]
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=2e-5, rtol=1e-4)
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    cached = model.generate(ids, attention_mask=mask, use_cache=True, **options)
    assert torch.equal(cached, model.generate(ids, attention_mask=mask, use_cache=False, **options))


def test_stand_ins_have_the_width_and_the_switches_of_what_they_replace() -> None:
    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer_idx, self.is_kv_shared_layer, self._private = 3, True, True

    hidden = torch.ones(2, 5, 8)
    assert NoOpFFN(width=3)(hidden).shape == (2, 5, 3)
    assert torch.equal(NoOpFFN(width=3)(hidden) * 2, torch.zeros(2, 5, 3))
    assert NoOpFFN()(hidden).shape == (2, 5, 8)
    (only,) = listed = NoOpFFN(returns=-1)(hidden)
    assert isinstance(listed, list)
    assert torch.equal(only + hidden, hidden)
    made = NoOpAttention.replacing(Attention(), returns=2)
    assert made.is_kv_shared_layer
    assert not hasattr(made, "_private")
    assert options_of(NoOpFFN(width=3)) == {"returns": 1, "width": 3}


def test_a_removed_mixer_hands_its_state_through() -> None:
    hidden, state = torch.ones(2, 5, 8), (torch.ones(3), torch.ones(4))
    no_op = NoOpFFN(returns=3)
    assert no_op(hidden, state)[1] is state
    assert [value is None for value in no_op(hidden, state)] == [False, False, True]
    assert no_op(hidden, torch.ones(2, 5), [1], "more")[1:] == (None, [1]), "positions and masks are no state"
    assert no_op(hidden_states=hidden)[1:] == (None, None)
