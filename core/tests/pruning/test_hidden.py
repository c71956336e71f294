"""Channels of the residual stream, on stock models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.errors import CheckpointError, UsageError
from anyblock.pruning import HiddenSizePruningMixIn, hidden_mixins

_SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-9,  # mask and child agree up to the norm's epsilon
    "pad_token_id": 0,
}


def _config(name: str) -> Any:
    import transformers as hf

    if name == "llama":
        return hf.LlamaConfig(**_SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    if name == "llama_tied":
        return hf.LlamaConfig(**_SIZES, tie_word_embeddings=True)
    if name == "qwen3":
        return hf.Qwen3Config(**_SIZES, head_dim=8, tie_word_embeddings=False)
    return hf.Qwen3MoeConfig(
        **_SIZES, head_dim=8, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=12, tie_word_embeddings=False
    )


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen3", "qwen3_moe"])
@pytest.mark.parametrize("size", [48, 32, 16])
def test_child_is_the_masked_teacher(name: str, size: int, make_teacher: Any, ids: Any, tools: Any) -> None:
    teacher = make_teacher(_config(name), sparse=name == "qwen3_moe")
    mixin = hidden_mixins()["hidden_size"]
    assert isinstance(mixin, HiddenSizePruningMixIn)
    wanted = tools.logits(teacher.load(), ids)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    ordered = mixin.sort(0, teacher.tensors, teacher.block, order, teacher.config)
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)
    changes = mixin.resize_config(teacher.config, size)
    config = SimpleNamespace(hidden_size=size)
    masked = tools.logits(teacher.load(mixin.mask(0, ordered, teacher.block, teacher.block, config)), ids)
    narrowed = mixin.narrow(0, ordered, teacher.block, teacher.block, config)
    tools.assert_close(tools.logits(teacher.load(narrowed, **changes), ids), masked, 5e-5)
    if size < 48:
        assert (masked - wanted).abs().max() > 1e-2


def test_groups_can_be_done_one_at_a_time(make_teacher: Any) -> None:
    teacher = make_teacher(_config("qwen3"))
    mixin = hidden_mixins()["hidden_size"]
    config = SimpleNamespace(hidden_size=32)
    whole = mixin.narrow(0, teacher.tensors, teacher.block, teacher.block, config)
    for name, tensor in teacher.tensors.items():
        alone = mixin.narrow(0, {name: tensor}, teacher.block, teacher.block, config)
        assert torch.equal(alone[name], whole[name])
        if "q_norm" in name or "k_norm" in name:
            assert alone[name] is tensor, "norms over a head have nothing to do with the hidden size"
        else:
            assert alone[name].shape != tensor.shape


def test_sizes_that_do_not_fit_are_refused(make_teacher: Any) -> None:
    teacher = make_teacher(_config("qwen3"))
    mixin = hidden_mixins()["hidden_size"]
    with pytest.raises(UsageError, match="64 is not possible"):
        mixin.narrow(0, teacher.tensors, teacher.block, teacher.block, SimpleNamespace(hidden_size=64))
    with pytest.raises(CheckpointError):
        mixin.sort(0, teacher.tensors, teacher.block, torch.arange(40), SimpleNamespace(hidden_size=40))
    assert mixin.resize(teacher.block, 32, teacher.config) == teacher.block
    with pytest.raises(UsageError, match="49"):
        mixin.resize(teacher.block, 49, teacher.config)
