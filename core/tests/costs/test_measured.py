"""What layers keep between decoding steps is seen wherever models keep it, and where it is not seen that is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anyblock.contract.cache_spec import CacheSpec
from anyblock.costs.probed_cache import kept_by_layers, measured_caches, run_with_cache
from anyblock.errors import UnsupportedModelError

RECURRENT_GEMMA = {"lru_width": 16, "attention_window_size": 7, "head_dim": 4, "conv1d_width": 4}
XLSTM = {"hidden_size": 128, "num_heads": 4, "num_blocks": 4, "chunk_size": 8}
LAYERS = {"openai-gpt": "transformer.h", "xlstm": "backbone.blocks"}


def layers_of(model: Any) -> list[torch.nn.Module]:
    return list(model.get_submodule(LAYERS.get(model.config.model_type, "model.layers")))


def test_states_among_the_modules_of_layers_count(build) -> None:
    model = build("recurrent_gemma", **RECURRENT_GEMMA)
    layers, config = layers_of(model), model.config
    recurrent = [hasattr(layer.temporal_block, "rg_lru") for layer in layers]
    assert set(recurrent) == {True, False}
    before = [dict(vars(module)) for layer in layers for module in layer.modules()]
    for index, spec in enumerate(measured_caches(model, layers)):
        if recurrent[index]:  # three inputs of the convolution in the model's dtype, and the state in float32
            assert spec.per_token == 0
            assert spec.elements(5) == spec.elements(50) == 16 * 3 + 16
        else:
            assert spec.elements(5) == 5 * 2 * config.num_key_value_heads * config.head_dim
            assert spec.elements(50) == spec.elements(6), "the window"
    assert [dict(vars(module)) for layer in layers for module in layer.modules()] == before


@pytest.mark.parametrize("steps", [(12,), (5, *[1] * 7)])
def test_a_model_that_takes_a_cache_and_returns_none_is_given_one(build, steps: tuple[int, ...]) -> None:
    model = build("recurrent_gemma", **RECURRENT_GEMMA)
    ids = torch.randint(1, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    parts, done, cache = [], 0, None
    with torch.no_grad():
        for step in steps:
            output, cache = run_with_cache(model, ids[:, done : done + step], cache)
            parts.append(output.logits)
            done += step
        expected = model(ids, use_cache=False).logits
    torch.testing.assert_close(torch.cat(parts, 1), expected)


def test_a_model_without_a_cache_keeps_nothing(build) -> None:
    model = build("openai-gpt")
    assert measured_caches(model, layers_of(model)) == [CacheSpec()] * 4


def test_states_by_layers_count(build) -> None:
    model = build("xlstm", **XLSTM)
    config, ids = model.config, torch.zeros(3, 5, dtype=torch.long)
    expected = config.num_heads * (config.qk_head_dim * config.v_head_dim + config.qk_head_dim + 1)
    for spec in measured_caches(model, layers_of(model)):
        assert (spec.per_token, spec.elements(9)) == (0, expected)
    for kept in kept_by_layers(model, layers_of(model), ids):
        assert sum(tensor.numel() for tensor in kept.tensors) == 3 * expected


def test_what_belongs_to_no_layer_is_refused(build) -> None:
    model = build("rwkv", attention_hidden_size=16)
    with pytest.raises(UnsupportedModelError, match="shows no cache by layers, but state"):
        measured_caches(model, list(model.rwkv.blocks))


def test_keys_that_are_the_values_as_well_count_once(build) -> None:
    """Layers with compressed entries keep one tensor under both names, next to them (DeepSeek-V4)."""
    model = build(
        "deepseek_v4",
        head_dim=8,
        q_lora_rank=8,
        o_groups=2,
        o_lora_rank=4,
        sliding_window=7,
        num_key_value_heads=1,
        n_routed_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        hc_mult=2,
        num_hidden_layers=1,
        partial_rotary_factor=0.5,
        compress_rates={"heavily_compressed_attention": 4},
        layer_types=["heavily_compressed_attention"],
        mlp_layer_types=["moe"],
    )
    (kept,) = kept_by_layers(model, layers_of(model), torch.arange(1, 13).reshape(1, 12))
    assert sum(tensor.numel() for tensor in kept.tensors) == (6 + 12 // 4) * 8
