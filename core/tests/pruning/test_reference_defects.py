"""One test for each known defect of the reference's pruning (the numbers of its defect list); each fails on its behaviour."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MambaConfig, MoEConfig
from anyblock.errors import UsageError
from anyblock.pruning.layouts import attention_mixins, dense_mixins, fused_sparse_mixins, sparse_mixins
from anyblock.pruning.ordering import best_first
from anyblock.pruning.residual import RMSNormStream


def _gpt_oss(make_teacher: Any) -> Any:
    from transformers import GptOssConfig

    return make_teacher(
        GptOssConfig(
            vocab_size=96, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=8,
            num_key_value_heads=4, head_dim=8, num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=64,
            tie_word_embeddings=False, pad_token_id=0, sliding_window=4,
        ),
        sparse=True,
        expert_dim="intermediate_size",
    )  # fmt: skip


def test_01_the_best_experts_are_kept_and_not_the_first_ones_of_a_list() -> None:
    scores = torch.tensor([0.1, 0.9, 0.3, 0.7])
    tensors = {
        f"model.layers.0.mlp.experts.{e}.{p}_proj.weight": torch.full((1, 1), float(e))
        for e in range(4)
        for p in ("gate", "up", "down")
    }
    tensors["model.layers.0.mlp.gate.weight"] = torch.arange(4.0).unsqueeze(1)
    moe = MoEConfig(num_local_experts=4, num_experts_per_tok=1, expert_intermediate_dim=1)
    block = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(moe=moe))
    mixin = sparse_mixins()["experts_removal"]
    order = best_first(scores)
    ordered = mixin.sort(0, tensors, block, order, SimpleNamespace())
    child = mixin.narrow(0, ordered, block, mixin.resize(block, 2, None), SimpleNamespace())
    assert child["model.layers.0.mlp.gate.weight"].flatten().tolist() == [1.0, 3.0]
    assert [child[f"model.layers.0.mlp.experts.{e}.up_proj.weight"].item() for e in range(2)] == [1.0, 3.0]
    assert "model.layers.0.mlp.experts.2.up_proj.weight" not in child


@pytest.mark.parametrize("kind", ["kv_heads", "query_groups"])
def test_07_output_bias_stays_and_sinks_move_with_their_heads(
    kind: str, make_teacher: Any, ids: Any, tools: Any
) -> None:
    """gpt-oss: an output bias of the hidden size, and one sink for each query head."""
    teacher = _gpt_oss(make_teacher)
    mixin = attention_mixins()[kind]
    wanted = tools.logits(teacher.load(), ids)
    ordered = teacher.sorted_by(mixin)
    for layer in range(2):
        prefix = f"model.layers.{layer}.self_attn"
        assert ordered[f"{prefix}.o_proj.bias"] is teacher.tensors[f"{prefix}.o_proj.bias"]
        assert not torch.equal(ordered[f"{prefix}.sinks"], teacher.tensors[f"{prefix}.sinks"])
    tools.assert_close(tools.logits(teacher.load(ordered), ids), wanted)
    for size in (2, 1):
        child = mixin.resize(teacher.block, size, teacher.config)
        changes = {"num_key_value_heads": size}
        if kind == "query_groups":
            changes["num_attention_heads"] = 2 * size
        masked = tools.logits(teacher.load(teacher.masked(mixin, child, ordered)), ids)
        narrowed = teacher.narrowed(mixin, child, ordered)
        assert len(narrowed["model.layers.0.self_attn.sinks"]) == (8 if kind == "kv_heads" else 2 * size)
        tools.assert_close(tools.logits(teacher.load(narrowed, **changes), ids), masked)


def test_08_a_number_of_heads_that_does_not_divide_is_refused() -> None:
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=8), ffn=FFNConfig(no_op=True))
    with pytest.raises(UsageError, match="3 is not possible") as caught:
        dense_mixins()["kv_heads"].resize(block, 3, SimpleNamespace(num_attention_heads=32))
    assert caught.value.hint == "the nearest possible size is 2 or 4"


def test_08_query_heads_can_go_as_well(make_teacher: Any) -> None:
    """In the reference, query projections and the output projection keep their full size."""
    teacher = _gpt_oss(make_teacher)
    mixin = attention_mixins()["query_groups"]
    child = mixin.resize(teacher.block, 1, teacher.config)
    narrowed = teacher.narrowed(mixin, child, teacher.tensors)
    assert narrowed["model.layers.0.self_attn.q_proj.weight"].shape == (16, 32)
    assert narrowed["model.layers.0.self_attn.o_proj.weight"].shape == (32, 16)


def test_09_layers_without_such_heads_are_left_out() -> None:
    mamba = MambaConfig(state_dim=8, num_heads=4, head_dim=8, num_groups=1)
    for attention in (AttentionConfig(mamba=mamba), AttentionConfig(no_op=True)):
        block = BlockConfig(attention=attention, ffn=FFNConfig(no_op=True))
        assert not any(mixin.applies_to(block) for mixin in {**dense_mixins(), **sparse_mixins()}.values())


def test_23_kinds_do_not_share_scores() -> None:
    """The reference reads every kind's scores from one cache that the first kind filled."""
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=2))
    config = SimpleNamespace(num_attention_heads=2, hidden_size=2, head_dim=1)
    prefix = "model.layers.0"
    tensors = {f"{prefix}.mlp.{p}_proj.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]) for p in ("gate", "up", "down")}
    tensors |= {f"{prefix}.self_attn.{p}_proj.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]) for p in "qkvo"}
    scores = {"ffn_intermediate": torch.tensor([0.0, 1.0]), "kv_heads": torch.tensor([1.0, 0.0])}
    kept = {}
    for kind, mixin in dense_mixins().items():
        if kind in scores:
            child = mixin.resize(block, 1, config)
            ordered = mixin.sort(0, tensors, block, best_first(scores[kind]), config)
            kept[kind] = mixin.narrow(0, ordered, block, child, config)
    assert kept["ffn_intermediate"][f"{prefix}.mlp.up_proj.weight"].tolist() == [[3.0, 4.0]]
    assert kept["kv_heads"][f"{prefix}.self_attn.k_proj.weight"].tolist() == [[1.0, 2.0]]


def test_26_the_width_of_gpt_oss_experts_can_shrink(make_teacher: Any, ids: Any, tools: Any) -> None:
    teacher = _gpt_oss(make_teacher)
    mixin = fused_sparse_mixins(router="router", gate_up="interleaved", transposed=True)["expert_intermediate"]
    child = mixin.resize(teacher.block, 8, teacher.config)
    ordered = teacher.sorted_by(mixin)
    masked = tools.logits(teacher.load(teacher.masked(mixin, child, ordered)), ids)
    narrowed = teacher.narrowed(mixin, child, ordered)
    assert narrowed["model.layers.0.mlp.experts.gate_up_proj"].shape == (8, 32, 16)
    tools.assert_close(tools.logits(teacher.load(narrowed, intermediate_size=8), ids), masked)


def test_28_optional_biases_are_cut_with_their_weights() -> None:
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=6))
    config = SimpleNamespace(num_attention_heads=4, hidden_size=8, head_dim=2)
    prefix = "model.layers.0"
    ffn = {
        f"{prefix}.mlp.{p}_proj.{s}": torch.randn((6, 8) if s == "weight" else (6,))
        for p in ("gate", "up")
        for s in ("weight", "bias")
    }
    ffn |= {f"{prefix}.mlp.down_proj.weight": torch.randn(8, 6), f"{prefix}.mlp.down_proj.bias": torch.randn(8)}
    mixin = dense_mixins()["ffn_intermediate"]
    child = mixin.narrow(0, ffn, block, mixin.resize(block, 4, config), config)
    assert torch.equal(child[f"{prefix}.mlp.gate_proj.bias"], ffn[f"{prefix}.mlp.gate_proj.bias"][:4])
    assert child[f"{prefix}.mlp.down_proj.bias"] is ffn[f"{prefix}.mlp.down_proj.bias"]


def test_31_hidden_size_pruning_exists() -> None:
    head = torch.randn(5, 8)
    assert torch.equal(RMSNormStream().narrow({"lm_head.weight": head}, 6)["lm_head.weight"], head[:, :6])


@pytest.mark.parametrize("gate_up", ["halves", "interleaved"])
def test_fused_experts_in_either_orientation_are_cut_alike(gate_up: Any) -> None:
    """qwen3_vl_moe on the hub: `[experts, hidden, 2 width]`; in memory: `[experts, 2 width, hidden]`."""
    moe = MoEConfig(num_local_experts=4, num_experts_per_tok=1, expert_intermediate_dim=8)
    block = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(moe=moe))
    prefix = "model.language_model.layers.0.mlp"
    straight = {
        f"{prefix}.gate.weight": torch.randn(4, 6),
        f"{prefix}.experts.gate_up_proj": torch.randn(4, 16, 6),
        f"{prefix}.experts.down_proj": torch.randn(4, 6, 8),
    }
    turned = {name: t.transpose(1, 2) if t.dim() == 3 else t for name, t in straight.items()}
    layer = "model.language_model.layers.{layer_idx}"
    orders = {"experts_removal": torch.randperm(4), "expert_intermediate": torch.rand(4, 8).argsort(dim=1)}
    for kind, order in orders.items():
        results = []
        for tensors, transposed in ((straight, False), (turned, True)):
            mixin = fused_sparse_mixins(layer, gate_up=gate_up, transposed=transposed)[kind]
            child = mixin.resize(block, mixin.size(block) // 2 if kind == "experts_removal" else 8, None)
            ordered = mixin.sort(0, tensors, block, order, None)
            results.append(mixin.narrow(0, ordered, block, child, None))
        for name, tensor in results[0].items():
            other = results[1][name]
            assert torch.equal(tensor, other.transpose(1, 2) if tensor.dim() == 3 else other)
            assert tensor.shape != straight[name].shape or kind == "expert_intermediate"
