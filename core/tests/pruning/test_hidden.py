"""Channels of the residual stream, on stock models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anyblock.errors import CheckpointError, PluginError, UsageError
from anyblock.pruning.residual import RMSNormStream

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
    stream = RMSNormStream()
    wanted = tools.logits(teacher.load(), ids)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    ordered = stream.sort(teacher.tensors, order)
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)
    changes = stream.child_config(teacher.config, size)
    masked = tools.logits(teacher.load(stream.mask(ordered, size)), ids)
    narrowed = stream.narrow(ordered, size)
    tools.assert_close(tools.logits(teacher.load(narrowed, **changes), ids), masked, 5e-5)
    if size < 48:
        assert (masked - wanted).abs().max() > 1e-2


def test_groups_can_be_done_one_at_a_time(make_teacher: Any) -> None:
    teacher = make_teacher(_config("qwen3"))
    stream = RMSNormStream()
    whole = stream.narrow(teacher.tensors, 32)
    for name, tensor in teacher.tensors.items():
        alone = stream.narrow({name: tensor}, 32)
        assert torch.equal(alone[name], whole[name])
        if "q_norm" in name or "k_norm" in name:
            assert alone[name] is tensor, "norms over a head have nothing to do with the hidden size"
        else:
            assert alone[name].shape != tensor.shape


def test_sizes_that_do_not_fit_are_refused(make_teacher: Any) -> None:
    teacher = make_teacher(_config("qwen3"))
    stream = RMSNormStream()
    for size in (64, 0):
        for refuses in (stream.narrow, stream.mask):
            with pytest.raises(UsageError, match=f"{size} is not possible"):
                refuses(teacher.tensors, size)
    with pytest.raises(CheckpointError):
        stream.sort(teacher.tensors, torch.arange(40))
    with pytest.raises(UsageError, match="a permutation of 48 units"):
        stream.sort(teacher.tensors, torch.zeros(48, dtype=torch.int64))
    stream.check_size(32, teacher.config)
    with pytest.raises(UsageError, match="49"):
        stream.check_size(49, teacher.config)


def test_a_stream_without_a_norm_to_watch_is_the_adapters_fault() -> None:
    with pytest.raises(PluginError, match="no norm whose output ranks the channels") as caught:
        RMSNormStream(norms=())
    assert 'not_implemented = ("hidden_size",)' in caught.value.hint


def test_legal_sizes_are_those_that_transformers_and_kernels_take() -> None:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import LlamaConfig

    stream, by_eight = RMSNormStream(), RMSNormStream(multiple=8)
    assert list(stream.legal_sizes(_config("llama"))) == [8, 16, 24, 32, 40, 48]  # of eight query heads
    for size in stream.legal_sizes(_config("llama")):
        LlamaConfig(**{**_SIZES, "hidden_size": size, **stream.child_config(_config("llama"), size)})
    with pytest.raises(StrictDataclassError, match="multiple"):
        LlamaConfig(**{**_SIZES, "hidden_size": 20, "head_dim": 6})
    assert list(stream.legal_sizes(_config("qwen3"))) == list(range(1, 49))
    assert list(by_eight.legal_sizes(_config("qwen3_moe"))) == [8, 16, 24, 32, 40, 48]
