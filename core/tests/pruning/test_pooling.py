"""Heads that are made from several of the teacher's; equality with the reference's children is in `test_golden`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import UsageError
from anyblock.pruning.heads import POOLING, pool_heads
from anyblock.pruning.layouts import attention_mixins, dense_mixins

_CONFIG = SimpleNamespace(num_attention_heads=8, hidden_size=16, head_dim=2)


def _block(heads: int, width: int = 6) -> BlockConfig:
    return BlockConfig(attention=AttentionConfig(num_key_value_heads=heads), ffn=FFNConfig(intermediate_size=width))


def _pooled(mixin: Any, how: str, tensors: Any, child: BlockConfig) -> dict[str, torch.Tensor]:
    return pool_heads(mixin, how, 0, tensors, _block(4), child, _CONFIG)


def _fused() -> dict[str, torch.Tensor]:
    prefix = "model.layers.0.self_attn"
    return {
        f"{prefix}.qkv_proj.weight": torch.randn(16 + 8 + 8, 16),
        f"{prefix}.qkv_proj.bias": torch.randn(32),
        f"{prefix}.o_proj.weight": torch.randn(16, 16),
    }


@pytest.mark.parametrize("how", POOLING)
def test_fused_projections_are_merged_like_separate_ones(how: str) -> None:
    tensors = _fused()
    fused = _pooled(attention_mixins(linears=("qkv_proj", "o_proj"))["kv_heads"], how, tensors, _block(2))
    separate: dict[str, torch.Tensor] = {}
    for suffix in ("weight", "bias"):
        parts = tensors[f"model.layers.0.self_attn.qkv_proj.{suffix}"].split([16, 8, 8])
        separate |= {f"model.layers.0.self_attn.{n}_proj.{suffix}": p for n, p in zip("qkv", parts, strict=True)}
    separate["model.layers.0.self_attn.o_proj.weight"] = tensors["model.layers.0.self_attn.o_proj.weight"]
    merged = _pooled(attention_mixins()["kv_heads"], how, separate, _block(2))
    for suffix in ("weight", "bias"):
        wanted = torch.cat([merged[f"model.layers.0.self_attn.{name}_proj.{suffix}"] for name in "qkv"])
        assert torch.equal(fused[f"model.layers.0.self_attn.qkv_proj.{suffix}"], wanted)
    heads = separate["model.layers.0.self_attn.k_proj.weight"].reshape(2, 2, 2, 16)
    wanted = heads.mean(dim=1) if how == "average" else heads[:, 0]
    torch.testing.assert_close(merged["model.layers.0.self_attn.k_proj.weight"], wanted.reshape(4, 16))


def test_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="ffn_intermediate"):
        _pooled(dense_mixins()["ffn_intermediate"], "first", {}, _block(4, 3))


def test_the_size_is_checked() -> None:
    with pytest.raises(UsageError, match="3 is not possible"):
        _pooled(attention_mixins(linears=("qkv_proj", "o_proj"))["kv_heads"], "average", _fused(), _block(3))
