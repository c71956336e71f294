"""Costs from shapes against real models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.costs.cost_model import Scenario, add_costs, fixed_costs, model_costs, subblock_costs
from anyblock.costs.registry import counted_costs, known_costs
from anyblock.costs.weights import WeightCost, dtype_bytes, is_tied, tensor_cost
from anyblock.errors import UsageError

MOE = {"num_experts_per_tok": 2}
MODELS = {
    "llama": {"tie_word_embeddings": False},
    "llama, tied": {"model_type": "llama", "tie_word_embeddings": True},
    "llama, biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 6},
    "mixtral": {"num_local_experts": 5, **MOE},
    "qwen3_moe": {"num_experts": 6, "moe_intermediate_size": 8, "decoder_sparse_step": 1, "mlp_only_layers": [], **MOE},
    "qwen2_moe": {
        "num_experts": 6,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 12,
        "decoder_sparse_step": 1,
        **MOE,
    },
    "gpt_oss": {"num_local_experts": 5, "head_dim": 8, **MOE},
    "granitemoe": {"num_local_experts": 5, **MOE},
}


def blocks_of(config):
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    ffn = FFNConfig(intermediate_size=config.intermediate_size)
    if experts:
        width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
        moe = MoEConfig(
            num_local_experts=experts,
            num_experts_per_tok=config.num_experts_per_tok,
            expert_intermediate_dim=width,
            shared_expert_intermediate_dim=getattr(config, "shared_expert_intermediate_size", None),
        )
        ffn = FFNConfig(moe=moe)
    attention = AttentionConfig(num_key_value_heads=config.num_key_value_heads)
    return [BlockConfig(attention=attention, ffn=ffn)] * config.num_hidden_layers


def params_used_by_one_token(model):
    """Count, without knowing names, the parameters that one token's loss depends on; embeddings and head in full.

    An expert tensor is one whose gradient is exactly zero for some slices of its first dimension.
    """
    # A large router bias would leave ties open; random weights do not. Every used slice gets some non-zero gradient.
    model.zero_grad()
    model(input_ids=torch.tensor([[3]])).logits.square().sum().backward()
    used = 0
    whole = {id(p) for m in (model.get_input_embeddings(), model.get_output_embeddings()) for p in m.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in whole or ("experts." not in name and parameter.dim() < 3):
            used += parameter.numel()
        else:
            slices = parameter.grad.flatten(1).ne(0).any(dim=1)
            used += int(slices.sum()) * parameter[0].numel()
    return used


@pytest.fixture(scope="module")
def case(request, build, checkpoint_tensors, tmp_path_factory):
    changes = dict(MODELS[request.param])
    model = build(changes.pop("model_type", request.param), **changes)
    return model, blocks_of(model.config), checkpoint_tensors(model, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_costs_equal_those_of_the_real_model(case, family):
    model, blocks, tensors = case
    scenario = Scenario(batch_size=2, length=9, cache_dtype="float32")
    costs = model_costs(family, model.config, blocks, tensors, scenario)
    assert costs.params == sum(p.numel() for p in model.parameters())
    assert costs.total["weight_memory"] == sum(p.numel() * p.element_size() for p in model.parameters())
    with torch.no_grad():
        cache = model(torch.zeros(2, 9, dtype=torch.long), use_cache=True).past_key_values
    assert costs.total["kv_memory"] == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert costs.total["memory"] == costs.total["weight_memory"] + costs.total["kv_memory"]
    assert costs.total["kv_heads"] == 2 * 4
    assert costs.total["attention_layers"] == costs.total["ffn_layers"] == 4
    assert round(costs.total["active_params"]) == params_used_by_one_token(model)
    assert set(costs.total) == set(counted_costs(family))


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_the_whole_is_the_sum_of_its_parts(case, family):
    model, blocks, tensors = case
    scenario = Scenario()
    costs = model_costs(family, model.config, blocks, tensors)
    assert costs.total == add_costs([costs.fixed, *costs.subblocks.values()])
    assert costs.fixed == fixed_costs(family, model.config, tensors, 4, scenario)
    for index in range(4):
        for half in ("attention", "ffn"):
            group = f"block_{index}_{half}"
            own = subblock_costs(family, model.config, blocks[index], index, half, tensors[group], scenario)
            assert own == costs.subblocks[group]
            assert own["params"] == sum(tensor.numel() for tensor in tensors[group].values())


@pytest.mark.parametrize("case", ["llama, tied"], indirect=True)
def test_a_stored_copy_of_a_tied_head_counts_once(case, family):
    model, blocks, tensors = case
    stored = {**tensors, "lm_head": {**tensors["lm_head"], "lm_head.weight": torch.empty(64, 16, device="meta")}}
    expected = sum(p.numel() for p in model.parameters())
    assert model_costs(family, model.config, blocks, stored).params == expected
    assert model_costs(family, model.config, blocks, tensors).params == expected
    model.config.tie_word_embeddings = False
    try:
        assert model_costs(family, model.config, blocks, stored).params == expected + 64 * 16
    finally:
        model.config.tie_word_embeddings = True


@pytest.mark.parametrize("case", ["llama"], indirect=True)
def test_removed_halves_cost_nothing(case, family):
    model, blocks, tensors = case
    teacher = model_costs(family, model.config, blocks, tensors)
    child = [blocks[0].with_attention(no_op=True), blocks[1].with_ffn(no_op=True), *blocks[2:]]
    kept = {group: value for group, value in tensors.items() if group not in ("block_0_attention", "block_1_ffn")}
    costs = model_costs(family, model.config, child, kept)
    for name in ("params", "active_params", "weight_memory", "memory", "kv_memory"):
        gone = sum(teacher.subblocks[group][name] for group in ("block_0_attention", "block_1_ffn"))
        assert costs.total[name] == teacher.total[name] - gone
    assert set(costs.subblocks["block_0_attention"].values()) == {0.0}
    assert (costs.total["attention_layers"], costs.total["ffn_layers"], costs.total["kv_heads"]) == (3, 3, 6)


@pytest.mark.parametrize("case", ["mixtral"], indirect=True)
def test_fewer_experts_leave_the_active_ones(case, family):
    model, blocks, tensors = case
    names = tensors["block_0_ffn"]
    kept = {
        name: tensor[:3] if "gate" in name else tensor
        for name, tensor in names.items()
        if not any(f"experts.{expert}." in name for expert in (3, 4))
    }
    full = subblock_costs(family, model.config, blocks[0], 0, "ffn", names, Scenario())
    fewer = subblock_costs(family, model.config, blocks[0].with_moe(num_local_experts=3), 0, "ffn", kept, Scenario())
    router_rows = 2 * 16
    assert fewer["active_params"] == full["active_params"] - router_rows
    assert fewer["params"] == full["params"] - router_rows - 2 * 3 * 16 * 24
    assert (full["experts"], fewer["experts"]) == (5, 3)


def test_extra_groups_are_fixed_costs(family):
    tensors = {"vision_encoding": {"v": torch.empty(3, 5, device="meta")}, "block_0_other": {"o": torch.empty(2)}}
    config = type("C", (), {"tie_word_embeddings": False})()
    assert fixed_costs(family, config, tensors, 1, Scenario())["params"] == 17


def test_weight_dtype_counts_bytes_as_if_stored_so():
    tensors = {"a": torch.empty(3, 2, dtype=torch.float32), "i": torch.empty(5, dtype=torch.int64)}
    assert tensor_cost(tensors) == WeightCost(11, 24 + 40)
    assert tensor_cost(tensors, dtype="bfloat16") == WeightCost(11, 12 + 40)
    assert tensor_cost({**tensors, "b": tensors["a"]}) == WeightCost(11, 24 + 40)
    for name in ("float32", "bfloat16", "float16", "float64", "int8", "uint8", "float8_e4m3fn", "float8_e5m2"):
        assert dtype_bytes(name) == dtype_bytes(f"torch.{name}") == getattr(torch, name).itemsize


def test_unknown_dtype_has_the_nearest_name():
    with pytest.raises(UsageError, match="did you mean 'bfloat16'"):
        Scenario(cache_dtype="bfloat61")
    with pytest.raises(UsageError, match="both at least 1"):
        replace(Scenario(), length=0)


def test_tying_is_read_from_the_whole_config_first():
    outer, inner = (type("C", (), {"tie_word_embeddings": value})() for value in (False, True))
    assert not is_tied(outer, inner)
    assert is_tied(object(), inner)
    assert not is_tied(object())


def test_every_cost_is_documented():
    for name, about in known_costs().items():
        assert about.summary.endswith("."), name
        assert about.unit, name
