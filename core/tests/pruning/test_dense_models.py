"""On stock transformers models: sorting changes nothing, and a child is the teacher without the removed units."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from anyblock.errors import CheckpointError
from anyblock.pruning.layouts import attention_mixins, dense_mixins, ffn_mixins

_SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}


def _config(name: str) -> Any:
    import transformers as hf

    match name:
        case "llama":
            return hf.LlamaConfig(**_SIZES, attention_bias=True, mlp_bias=True)
        case "mistral":
            return hf.MistralConfig(**_SIZES, head_dim=8, sliding_window=5)
        case "qwen2":
            return hf.Qwen2Config(**_SIZES)
        case "qwen3":
            return hf.Qwen3Config(**_SIZES, head_dim=8)
        case "phi3":
            return hf.Phi3Config(**_SIZES)
        case "olmo2":
            # Norms over all heads: mask and child agree up to the norm's epsilon.
            return hf.Olmo2Config(**_SIZES, rms_norm_eps=1e-9)
        case "gemma2":
            return hf.Gemma2Config(**_SIZES, head_dim=8, query_pre_attn_scalar=8, sliding_window=5)
        case "granite":
            return hf.GraniteConfig(**_SIZES)
        case "starcoder2":
            return hf.Starcoder2Config(**_SIZES, use_bias=True)
        case "qwen3_next":
            # Each query head's rows are query and gate.
            return hf.Qwen3NextConfig(
                **_SIZES, head_dim=8, layer_types=["full_attention"] * 2, num_experts=4, num_experts_per_tok=2,
                moe_intermediate_size=8, shared_expert_intermediate_size=8, mlp_only_layers=[0, 1],
            )  # fmt: skip
        case "gpt2":
            return hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_inner=24, n_positions=64)
        case "opt":
            return hf.OPTConfig(
                vocab_size=96, hidden_size=32, word_embed_proj_dim=32, ffn_dim=24, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=64, pad_token_id=0,
            )  # fmt: skip
    raise AssertionError(name)


def _mixins(name: str) -> dict[str, Any]:
    layer = "model.layers.{layer_idx}"
    match name:
        case "phi3":
            return {
                **attention_mixins(linears=("qkv_proj", "o_proj")),
                **ffn_mixins(linears=("gate_up_proj", "down_proj"), fused_gate_up="halves"),
            }
        case "qwen3_next":
            return {**attention_mixins(query_row_multiple=2), **ffn_mixins()}
        case "starcoder2":
            return {**attention_mixins(), **ffn_mixins(linears=("c_fc", "c_proj"))}
        case "gpt2":
            return ffn_mixins("transformer.h.{layer_idx}", linears=("c_fc", "c_proj"), transposed=True)
        case "opt":
            return ffn_mixins("model.decoder.layers.{layer_idx}", "", linears=("fc1", "fc2"))
    return dense_mixins(layer)


_FFN = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "olmo2",
    "gemma2",
    "granite",
    "starcoder2",
    "qwen3_next",
    "gpt2",
    "opt",
]
_GQA = ["llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "gemma2", "granite", "starcoder2", "qwen3_next"]
_WIDTH = {"gpt2": "n_inner", "opt": "ffn_dim"}
# The child's query heads are fewer, so the head's width has to be in the configuration.
_HEAD_DIM = ["llama", "mistral", "qwen3", "gemma2", "qwen2", "starcoder2", "olmo2", "granite", "phi3", "qwen3_next"]


def _teacher(name: str, make_teacher: Callable[..., Any], tools: Any) -> Any:
    config = _config(name)
    if name == "opt":
        config.intermediate_size = config.ffn_dim
    return make_teacher(config)


@pytest.mark.parametrize("name", _FFN)
@pytest.mark.parametrize("size", [24, 13, 1])
def test_ffn_child_is_the_masked_teacher(name: str, size: int, make_teacher: Any, ids: Any, tools: Any) -> None:
    teacher = _teacher(name, make_teacher, tools)
    mixin = _mixins(name)["ffn_intermediate"]
    wanted = tools.logits(teacher.load(), ids)
    ordered = teacher.sorted_by(mixin)
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)
    child = mixin.resize(teacher.block, size, teacher.config)
    narrowed = teacher.narrowed(mixin, child, ordered)
    # A norm behind the ffn (Gemma 2) brings what one channel is left to back to size, and its rounding with it.
    masked = tools.logits(teacher.load(teacher.masked(mixin, child, ordered)), ids, torch.float64)
    found = tools.logits(teacher.load(narrowed, **{_WIDTH.get(name, "intermediate_size"): size}), ids, torch.float64)
    tools.assert_close(found, masked)
    if size < 24:
        assert (masked - wanted).abs().max() > 1e-2, "the mask has to matter for this test to say anything"


@pytest.mark.parametrize("name", _GQA)
@pytest.mark.parametrize("size", [4, 2, 1])
def test_kv_heads_child_is_the_masked_teacher(name: str, size: int, make_teacher: Any, ids: Any, tools: Any) -> None:
    teacher = _teacher(name, make_teacher, tools)
    mixin = _mixins(name)["kv_heads"]
    wanted = tools.logits(teacher.load(), ids)
    ordered = teacher.sorted_by(mixin)
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)
    child = mixin.resize(teacher.block, size, teacher.config)
    narrowed = teacher.narrowed(mixin, child, ordered)
    masked = tools.logits(teacher.load(teacher.masked(mixin, child, ordered)), ids)
    found = tools.logits(teacher.load(narrowed, num_key_value_heads=size), ids)
    tools.assert_close(found, masked)
    if size < 4:
        assert (masked - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("name", _HEAD_DIM)
@pytest.mark.parametrize("size", [4, 3, 1])
def test_query_groups_child_is_the_masked_teacher(
    name: str, size: int, make_teacher: Any, ids: Any, tools: Any
) -> None:
    teacher = _teacher(name, make_teacher, tools)
    mixin = _mixins(name)["query_groups"]
    wanted = tools.logits(teacher.load(), ids)
    ordered = teacher.sorted_by(mixin)
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)
    child = mixin.resize(teacher.block, size, teacher.config)
    assert (child.attention.num_key_value_heads, child.attention.num_attention_heads) == (size, 2 * size)
    width = teacher.tensors["model.layers.0.self_attn.o_proj.weight"].shape[1] // 8
    changes = {"num_key_value_heads": size, "num_attention_heads": 2 * size, "head_dim": width}
    narrowed = teacher.narrowed(mixin, child, ordered)
    assert narrowed["model.layers.0.self_attn.o_proj.weight"].shape[1] == 2 * size * width
    masked = tools.logits(teacher.load(teacher.masked(mixin, child, ordered)), ids)
    tools.assert_close(tools.logits(teacher.load(narrowed, **changes), ids), masked)
    if size < 4:
        assert (masked - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["ffn_intermediate", "kv_heads", "query_groups"])
def test_children_have_the_same_shapes_on_the_meta_device(kind: str, make_teacher: Any, tools: Any) -> None:
    teacher = _teacher("phi3", make_teacher, tools)
    mixin = _mixins("phi3")[kind]
    child = mixin.resize(teacher.block, mixin.size(teacher.block) // 2, teacher.config)
    real = teacher.narrowed(mixin, child, teacher.tensors)
    meta = teacher.narrowed(mixin, child, {name: tensor.to("meta") for name, tensor in teacher.tensors.items()})
    assert {name: (t.shape, t.dtype) for name, t in real.items()} == {
        name: (t.shape, t.dtype) for name, t in meta.items()
    }
    assert all(tensor.is_meta for tensor in meta.values())
    assert any(meta[name].shape != teacher.tensors[name].shape for name in meta)


def test_narrowing_separate_projections_copies_nothing(make_teacher: Any, tools: Any) -> None:
    teacher = _teacher("llama", make_teacher, tools)
    for kind in ("ffn_intermediate", "query_groups"):
        mixin = _mixins("llama")[kind]
        child = mixin.resize(teacher.block, mixin.size(teacher.block) - 1, teacher.config)
        narrowed = mixin.narrow(0, teacher.tensors, teacher.block, child, teacher.config)
        for name, tensor in narrowed.items():
            assert tensor.untyped_storage().data_ptr() == teacher.tensors[name].untyped_storage().data_ptr(), name


def test_other_layers_and_tensors_pass_through(make_teacher: Any, tools: Any) -> None:
    teacher = _teacher("llama", make_teacher, tools)
    for mixin in dense_mixins().values():
        order = torch.arange(mixin.size(teacher.block) - 1, -1, -1)
        result = mixin.sort(1, teacher.tensors, teacher.block, order, teacher.config)
        assert result.keys() == teacher.tensors.keys()
        prefix = "model.layers.1.mlp" if mixin.half == "ffn" else "model.layers.1.self_attn"
        for name, tensor in result.items():
            untouched = not name.startswith(prefix) or name in (f"{prefix}.down_proj.bias", f"{prefix}.o_proj.bias")
            assert (tensor is teacher.tensors[name]) == untouched, name


@pytest.mark.parametrize("kind", ["kv_heads", "query_groups"])
def test_a_layer_whose_keys_are_the_values_has_no_value_projection(kind: str, make_teacher: Any, tools: Any) -> None:
    """As its configuration says (Gemma 4); elsewhere its absence is an error."""
    teacher = _teacher("llama", make_teacher, tools)
    mixin, config = _mixins("llama")[kind], copy.deepcopy(teacher.config)
    child = mixin.resize(teacher.block, 2, config)
    without = {name: tensor for name, tensor in teacher.tensors.items() if "v_proj" not in name}
    with pytest.raises(CheckpointError, match=r"v_proj\.weight"):
        mixin.narrow(0, without, teacher.block, child, config)
    whole = mixin.narrow(0, teacher.tensors, teacher.block, child, config)
    config.attention_k_eq_v = True
    found = mixin.narrow(0, without, teacher.block, child, config)
    assert {name for name in whole if "v_proj" not in name} == found.keys()
    assert all(torch.equal(found[name], whole[name]) for name in found)
