"""Initialisation modes, beside the reference's children in `test_golden`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import UsageError
from anyblock.pruning import INIT_MODES, Initialisation, attention_mixins, dense_mixins

_CONFIG = SimpleNamespace(num_attention_heads=8, hidden_size=16, head_dim=2)
_BLOCK = BlockConfig(attention=AttentionConfig(num_key_value_heads=4), ffn=FFNConfig(intermediate_size=6))


def _what(mixins: dict[str, Any], kind: str, size: int, tensors: Any, **more: Any) -> Initialisation:
    mixin = mixins[kind]
    child = mixin._resized(_BLOCK, size, _CONFIG)
    return Initialisation(
        mixin=mixin, layer_index=0, tensors=tensors, block=_BLOCK, child=child, config=_CONFIG, **more
    )


def _fused() -> dict[str, torch.Tensor]:
    prefix = "model.layers.0.self_attn"
    return {
        f"{prefix}.qkv_proj.weight": torch.randn(16 + 8 + 8, 16),
        f"{prefix}.qkv_proj.bias": torch.randn(32),
        f"{prefix}.o_proj.weight": torch.randn(16, 16),
    }


@pytest.mark.parametrize("mode", ["AverageKV", "FirstKV"])
def test_fused_projections_are_merged_like_separate_ones(mode: str) -> None:
    tensors = _fused()
    fused = INIT_MODES[mode](_what(attention_mixins(linears=("qkv_proj", "o_proj")), "kv_heads", 2, tensors))
    separate: dict[str, torch.Tensor] = {}
    for suffix in ("weight", "bias"):
        parts = tensors[f"model.layers.0.self_attn.qkv_proj.{suffix}"].split([16, 8, 8])
        separate |= {f"model.layers.0.self_attn.{n}_proj.{suffix}": p for n, p in zip("qkv", parts, strict=True)}
    separate["model.layers.0.self_attn.o_proj.weight"] = tensors["model.layers.0.self_attn.o_proj.weight"]
    merged = INIT_MODES[mode](_what(attention_mixins(), "kv_heads", 2, separate))
    for suffix in ("weight", "bias"):
        wanted = torch.cat([merged[f"model.layers.0.self_attn.{name}_proj.{suffix}"] for name in "qkv"])
        assert torch.equal(fused[f"model.layers.0.self_attn.qkv_proj.{suffix}"], wanted)
    heads = separate["model.layers.0.self_attn.k_proj.weight"].reshape(2, 2, 2, 16)
    wanted = heads.mean(dim=1) if mode == "AverageKV" else heads[:, 0]
    torch.testing.assert_close(merged["model.layers.0.self_attn.k_proj.weight"], wanted.reshape(4, 16))


@pytest.mark.parametrize("mode", ["AverageKV", "FirstKV", "PruneKVHeads", "ExpertRemoval"])
def test_a_mode_of_another_kind_is_refused(mode: str) -> None:
    with pytest.raises(UsageError, match="ffn_intermediate"):
        INIT_MODES[mode](_what(dense_mixins(), "ffn_intermediate", 3, {}, scores=torch.zeros(6)))


def test_modes_that_choose_need_scores() -> None:
    with pytest.raises(UsageError, match="no scores"):
        INIT_MODES["PruneByActivationsLog"](_what(dense_mixins(), "ffn_intermediate", 3, {}))


def test_copying_needs_the_same_size() -> None:
    tensors = {"a": torch.zeros(1)}
    assert INIT_MODES["CopyAsIs"](_what(dense_mixins(), "ffn_intermediate", 6, tensors)) == tensors
    with pytest.raises(UsageError, match="6 units cannot be copied into 3"):
        INIT_MODES["CopyAsIs"](_what(dense_mixins(), "ffn_intermediate", 3, tensors))


@pytest.mark.parametrize("mode", ["AverageKV", "FirstKV", "PruneKVHeads"])
def test_every_mode_checks_the_size(mode: str) -> None:
    mixins = attention_mixins(linears=("qkv_proj", "o_proj"))
    with pytest.raises(UsageError, match="3 is not possible"):
        INIT_MODES[mode](_what(mixins, "kv_heads", 3, _fused(), scores=torch.zeros(4)))
