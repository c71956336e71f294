"""Experts and their channels on stock transformers models, by checkpoint names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from anyblock.errors import UnsupportedModelError
from anyblock.importance.router import silenced_experts
from anyblock.pruning.experts import ExpertRemovalPruningMixIn
from anyblock.pruning.layouts import fused_sparse_mixins, sparse_mixins

_SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "num_experts_per_tok": 2,
}


@dataclass
class Case:
    config: Callable[[], Any]
    mixins: dict[str, Any]
    experts: str = "num_local_experts"
    width: str = "moe_intermediate_size"
    router: str = "model.layers.{}.mlp.gate"
    layers: tuple[int, ...] = (0, 1)
    bias: bool = False
    sizes: tuple[int, ...] = (8, 5, 2)
    widths: tuple[int, ...] = (8, 4)
    shared: int | None = None


def _hf(name: str, **more: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        return getattr(transformers, name)(**{**_SIZES, **more})

    return build


_GROUPED = {
    "n_group": 2, "topk_group": 1, "moe_intermediate_size": 12, "n_routed_experts": 8, "n_shared_experts": 1,
    "first_k_dense_replace": 0, "intermediate_size": 24, "num_key_value_heads": 4, "q_lora_rank": 16,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
_CASES = {
    "mixtral": Case(
        _hf("MixtralConfig", num_local_experts=8, intermediate_size=12),
        sparse_mixins(moe="block_sparse_moe", linears=("w1", "w3", "w2"), module="mlp"),
        width="intermediate_size",
    ),
    "qwen3_moe": Case(
        _hf("Qwen3MoeConfig", num_experts=8, moe_intermediate_size=12, head_dim=8, norm_topk_prob=True),
        sparse_mixins(),
    ),
    "olmoe": Case(
        _hf("OlmoeConfig", num_experts=8, intermediate_size=12), sparse_mixins(), "num_experts", "intermediate_size"
    ),
    "gpt_oss": Case(
        _hf("GptOssConfig", num_local_experts=8, intermediate_size=12, head_dim=8),
        fused_sparse_mixins(router="router", gate_up="interleaved", transposed=True),
        width="intermediate_size",
        router="model.layers.{}.mlp.router",
        bias=True,
    ),
    "deepseek_v3": Case(
        _hf("DeepseekV3Config", **{**_GROUPED, "n_group": 1, "topk_group": 1}),
        sparse_mixins(correction_bias=True, groups="n_group", shared_is_multiple=True),
        experts="n_routed_experts",
        widths=(4,),
        shared=12,
        bias=True,
    ),
    "deepseek_v3_groups": Case(
        _hf("DeepseekV3Config", **_GROUPED),
        sparse_mixins(correction_bias=True, groups="n_group", shared_is_multiple=True),
        experts="n_routed_experts",
        widths=(4,),
        shared=12,
        bias=True,
        sizes=(8, 6, 4),
    ),
    "nemotron_h": Case(
        _hf(
            "NemotronHConfig", layers_block_type=["attention", "moe", "moe"], n_routed_experts=8,
            moe_intermediate_size=12, moe_shared_expert_intermediate_size=16, intermediate_size=24, head_dim=8,
            n_group=1, topk_group=1, mamba_num_heads=4, mamba_head_dim=8, ssm_state_size=8, n_groups=1,
            routed_scaling_factor=1.5,
        ),
        sparse_mixins(
            "backbone.layers.{layer_idx}", "mixer", linears=("up_proj", "down_proj"), correction_bias=True,
            groups="n_group",
        ),
        experts="n_routed_experts",
        router="model.layers.{}.mixer.gate",
        layers=(1, 2),
        bias=True,
    ),
}  # fmt: skip


def _teacher(case: Case, make_teacher: Callable[..., Any]) -> Any:
    teacher = make_teacher(case.config(), sparse=True, expert_dim=case.width)
    teacher.layers = case.layers
    return teacher


@pytest.mark.parametrize("name", _CASES)
def test_sorting_experts_changes_nothing(name: str, make_teacher: Any, ids: Any, tools: Any) -> None:
    case = _CASES[name]
    teacher = _teacher(case, make_teacher)
    wanted = tools.logits(teacher.load(), ids)
    mixin = case.mixins["experts_removal"]
    ordered = teacher.sorted_by(mixin)
    assert any(not torch.equal(ordered[key], teacher.tensors[key]) for key in ordered)
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)


@pytest.mark.parametrize("name", _CASES)
def test_child_routes_as_the_teacher_without_the_removed_experts(
    name: str, make_teacher: Any, ids: Any, tools: Any
) -> None:
    case = _CASES[name]
    teacher = _teacher(case, make_teacher)
    mixin = case.mixins["experts_removal"]
    ordered = teacher.sorted_by(mixin)
    model = teacher.load(ordered)
    whole = tools.logits(model, ids)
    for size in case.sizes:
        child = mixin.resize(teacher.block, size, teacher.config)
        with ExitStack() as silence:
            removed = mixin.removed(teacher.block, size, teacher.config).tolist()
            for layer in teacher.layers:
                router = model.get_submodule(case.router.format(layer))
                silence.enter_context(silenced_experts(router, removed, 8))
            wanted = tools.logits(model, ids)
        narrowed = teacher.narrowed(mixin, child, ordered)
        found = tools.logits(teacher.load(narrowed, **{case.experts: size}), ids)
        tools.assert_close(found, wanted)
        if size < 8:
            assert (wanted - whole).abs().max() > 1e-3
    assert torch.equal(tools.logits(model, ids), whole), "the scope leaves nothing behind"


@pytest.mark.parametrize("name", [name for name, case in _CASES.items() if case.bias])
def test_masked_routers_with_a_bias_equal_the_child(name: str, make_teacher: Any, ids: Any, tools: Any) -> None:
    case = _CASES[name]
    teacher = _teacher(case, make_teacher)
    mixin = case.mixins["experts_removal"]
    ordered = teacher.sorted_by(mixin)
    for size in case.sizes:
        child = mixin.resize(teacher.block, size, teacher.config)
        masked = tools.logits(teacher.load(teacher.masked(mixin, child, ordered)), ids)
        found = teacher.load(teacher.narrowed(mixin, child, ordered), **{case.experts: size})
        tools.assert_close(tools.logits(found, ids), masked)


def test_a_router_without_bias_cannot_be_masked_by_weights(make_teacher: Any) -> None:
    case = _CASES["mixtral"]
    teacher = _teacher(case, make_teacher)
    mixin = case.mixins["experts_removal"]
    child = mixin.resize(teacher.block, 4, teacher.config)
    with pytest.raises(UnsupportedModelError, match="no bias") as caught:
        mixin.mask(0, teacher.tensors, teacher.block, child, teacher.config)
    assert "silenced_experts" in caught.value.hint


@pytest.mark.parametrize("own_order", [True, False])
@pytest.mark.parametrize("name", [*_CASES])
def test_expert_channels(name: str, own_order: bool, make_teacher: Any, ids: Any, tools: Any) -> None:
    case = _CASES[name]
    teacher = _teacher(case, make_teacher)
    mixin = case.mixins["expert_intermediate"]
    wanted = tools.logits(teacher.load(), ids)
    order = torch.rand(8, 12, generator=torch.Generator().manual_seed(2)).argsort(dim=1)

    def step(layer: int, tensors: Any) -> Any:
        return mixin.sort(layer, tensors, teacher.block, order if own_order else order[layer], teacher.config)

    ordered = teacher.apply(step)
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)
    for size in case.widths:
        child = mixin.resize(teacher.block, size, teacher.config)
        masked = tools.logits(teacher.load(teacher.masked(mixin, child, ordered)), ids)
        assert (masked - wanted).abs().max() > 1e-3
        # DeepSeek-V3 counts the width of its shared expert in routed experts.
        more = {"n_shared_experts": case.shared // size} if case.shared else {}
        found = teacher.load(teacher.narrowed(mixin, child, ordered), **{case.width: size, **more})
        tools.assert_close(tools.logits(found, ids), masked)


def test_the_width_of_experts_has_to_divide_a_shared_expert_counted_in_them() -> None:
    from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig

    def legal(shared: int | None, multiple: bool) -> list[int]:
        moe = MoEConfig(
            num_local_experts=4,
            num_experts_per_tok=1,
            expert_intermediate_dim=24,
            shared_expert_intermediate_dim=shared,
        )
        block = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(moe=moe))
        mixin = sparse_mixins(shared_is_multiple=multiple)["expert_intermediate"]
        return list(mixin.legal_sizes(block, None))

    assert legal(48, True) == [8, 16, 24]
    assert legal(24, True) == [8, 24]
    assert legal(24, False) == legal(None, True) == [8, 16, 24]


def test_experts_of_a_group_limited_router_are_cut_evenly() -> None:
    from types import SimpleNamespace

    from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
    from anyblock.errors import UsageError

    moe = MoEConfig(num_local_experts=12, num_experts_per_tok=4, expert_intermediate_dim=4)
    block = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(moe=moe))
    config = SimpleNamespace(n_group=3, topk_group=2)
    mixin = sparse_mixins(groups="n_group")["experts_removal"]
    assert isinstance(mixin, ExpertRemovalPruningMixIn)
    assert list(mixin.legal_sizes(block, config)) == [6, 9, 12]
    assert mixin.kept(block, 6, config).tolist() == [0, 1, 4, 5, 8, 9]
    order = torch.tensor([11, 0, 5, 1, 10, 4, 9, 2, 3, 8, 7, 6])
    assert mixin.within_groups(order, config).tolist() == [0, 1, 2, 3, 5, 4, 7, 6, 11, 10, 9, 8]
    with pytest.raises(UsageError, match="7 is not possible") as caught:
        mixin.resize(block, 7, config)
    assert "6 or 9" in caught.value.hint
