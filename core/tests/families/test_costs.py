"""Costs of every family are what can be counted in its model: weights, active weights, and the bytes of a real cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import get_family, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.costs.cost_model import Scenario, model_costs
from anyblock.extensions import installed_plugins

FAMILIES = [name for name in installed_plugins().model_types if name != "example"]
LENGTH = 40
"""Longer than every sliding window of the tiny models."""


def tensors_of(value: Any) -> Iterable[torch.Tensor]:
    """The tensors that a layer of a cache holds; a window's length, a tensor without dimensions, is not state."""
    if isinstance(value, torch.Tensor):
        if value.dim():
            yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(inner)


def used_by_one_token(model: Any) -> int:
    """Elements on which the logits of one token depend: of routed experts those with a gradient, everything else in full."""
    model.requires_grad_(True)
    model(input_ids=torch.tensor([[3]])).logits.square().sum().backward()
    used = 0
    for name, parameter in model.named_parameters():
        routed = ".experts." in name and parameter.dim() > 1
        if not routed or parameter.grad is None:
            used += 0 if routed else parameter.numel()
        elif name.split(".experts.")[1].split(".")[0].isdigit():  # an expert with tensors of its own
            used += parameter.numel() if parameter.grad.ne(0).any() else 0
        else:
            used += int(parameter.grad.flatten(1).ne(0).any(dim=1).sum()) * parameter[0].numel()
    return used


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_costs_are_what_is_counted_in_the_model(
    model_type: str, dtype: str, tiny_teacher: Callable[[str], Path]
) -> None:
    """Tied heads once, windows cut off, a Mamba's state in float32 whatever the cache is in."""
    family = get_family(model_type)
    teacher = SubblockCheckpoint.open(tiny_teacher(model_type))
    kind = getattr(torch, dtype)
    model = load_model(teacher.path, dtype=kind)
    shapes = {group: teacher.meta(group) for group in teacher.groups}
    scenario = Scenario(batch_size=2, length=LENGTH, cache_dtype=dtype, weight_dtype=dtype)
    costs = model_costs(family, model.config, teacher.block_configs, shapes, scenario)
    stored = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}.values()
    assert costs.params == sum(tensor.numel() for tensor in stored)
    assert costs.total["weight_memory"] == costs.params * kind.itemsize
    with torch.no_grad():
        cache = model(torch.zeros(2, LENGTH, dtype=torch.long), use_cache=True).past_key_values
    held = [tensor for layer in cache.layers for tensor in tensors_of(vars(layer))]
    assert costs.total["kv_memory"] == sum(tensor.numel() * tensor.itemsize for tensor in held)
    assert costs.total["memory"] == costs.total["weight_memory"] + costs.total["kv_memory"]
    if dtype == "float32":
        unstored = costs.params - sum(p.numel() for p in model.parameters())
        assert round(costs.total["active_params"]) == used_by_one_token(model) + unstored


def test_the_tiny_models_have_what_this_is_about() -> None:
    """A window shorter than the text, a Mamba, experts, shared experts, a tied head, and heads wider than hidden / heads."""
    texts = {name: get_family(name).conformance_config() for name in FAMILIES}
    texts = {name: get_family(name).language_model_config(config) for name, config in texts.items()}
    windows = [getattr(text, "sliding_window", None) for text in texts.values()]
    assert sum(bool(window) and window < LENGTH for window in windows) >= 3
    assert any(getattr(text, "tie_word_embeddings", False) for text in texts.values())
    assert any((getattr(t, "head_dim", None) or 0) * t.num_attention_heads > t.hidden_size for t in texts.values())
    assert {"nemotron_h", "deepseek_v3", "mixtral"} <= texts.keys()
