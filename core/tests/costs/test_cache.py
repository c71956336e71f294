"""The cache that is counted is the cache that transformers keeps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MambaConfig
from anyblock.contract.cache_spec import CacheSpec, head_width
from anyblock.descriptors.cache import attention_cache, mamba_cache

MODELS = {
    "llama": {},
    "llama, one kv head": {"model_type": "llama", "num_key_value_heads": 1},
    "qwen3, wide heads": {"model_type": "qwen3", "head_dim": 16},
    "qwen2": {},
    "qwen2, windowed": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    "mistral, windowed": {"model_type": "mistral", "sliding_window": 6},
    "mistral, window of one": {"model_type": "mistral", "sliding_window": 1},
    "mixtral": {"sliding_window": 5, "num_local_experts": 2, "num_experts_per_tok": 1},
    "phi3": {"sliding_window": 4},
    "starcoder2": {"sliding_window": 7},
    "gemma2": {"sliding_window": 5, "head_dim": 8},
    "gpt_oss": {"sliding_window": 5, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "llama4_text": {
        "attention_chunk_size": 8,
        "head_dim": 4,
        "num_local_experts": 2,
        "intermediate_size_mlp": 24,
        "moe_layers": [],
    },
}


def block(heads):
    return BlockConfig(attention=AttentionConfig(num_key_value_heads=heads), ffn=FFNConfig(intermediate_size=8))


@pytest.mark.parametrize("name", MODELS)
def test_bytes_equal_those_of_a_real_cache(name, build):
    changes = dict(MODELS[name])
    model = build(changes.pop("model_type", name), **changes)
    for batch, length in ((1, 3), (2, 9)):
        with torch.no_grad():
            cache = model(torch.zeros(batch, length, dtype=torch.long), use_cache=True).past_key_values
        for index, layer in enumerate(cache.layers):
            spec = attention_cache(model.config, block(model.config.num_key_value_heads), index)
            assert spec.elements(length) * batch == layer.keys.numel() + layer.values.numel(), (
                f"layer {index}, {length}"
            )


def test_decoding_keeps_as_much_as_a_prefill_of_that_length(build):
    model = build("mistral", sliding_window=6)
    with torch.no_grad():
        cache = model(torch.zeros(1, 4, dtype=torch.long), use_cache=True).past_key_values
        for _ in range(5):
            cache = model(torch.zeros(1, 1, dtype=torch.long), past_key_values=cache).past_key_values
    spec = attention_cache(model.config, block(2), 0)
    assert spec.elements(9) == cache.layers[0].keys.numel() + cache.layers[0].values.numel()


def test_removed_attention_and_other_mixers_have_no_such_cache():
    config = SimpleNamespace(head_dim=8)
    assert attention_cache(config, block(2).with_attention(no_op=True), 0) == CacheSpec()
    assert attention_cache(config, block(None), 0) == CacheSpec()


def test_shared_keys_and_values_count_once():
    config = SimpleNamespace(head_dim=8, kv_sharing_modes=["own", "reuse"])
    assert attention_cache(config, block(2), 0).per_token == 32
    assert attention_cache(config, block(2), 1) == CacheSpec()


def test_a_window_that_is_switched_off_in_the_file_does_not_count(build):
    """A Qwen file carries a `sliding_window` and `use_sliding_window: false`; a raw view of it counts no window."""
    model = build("qwen3_moe", moe_intermediate_size=8, num_experts=2, num_experts_per_tok=1)
    assert model.config.sliding_window is None
    raw = {"head_dim": 8, "sliding_window": 4, "use_sliding_window": False}
    assert attention_cache(SimpleNamespace(**raw), block(2), 0).window is None
    assert attention_cache(SimpleNamespace(**{**raw, "use_sliding_window": True}), block(2), 0).window == 3


def test_head_width_comes_from_the_config_when_it_has_one():
    assert head_width(SimpleNamespace(hidden_size=64, num_attention_heads=4)) == 16
    assert head_width(SimpleNamespace(hidden_size=64, num_attention_heads=4, head_dim=None)) == 16
    assert head_width(SimpleNamespace(hidden_size=64, num_attention_heads=4, head_dim=32)) == 32


def test_elements_of_a_fixed_state():
    spec = CacheSpec(per_token=4, window=3, fixed=100)
    assert [spec.elements(length) for length in (1, 3, 9)] == [104, 112, 112]


def test_what_is_kept_in_float32_takes_four_bytes_whatever_the_cache_is_in():
    spec = mamba_cache(MambaConfig(state_dim=3, num_heads=2, head_dim=5, num_groups=1), 4)
    assert spec == CacheSpec(fixed=4 * (10 + 6), float32=30)
    assert spec.elements(7) == spec.elements(700) == 94
    assert spec.bytes(7, 2) == 64 * 2 + 30 * 4
    assert CacheSpec(per_token=6, window=5, fixed=1).bytes(9, 2) == (6 * 5 + 1) * 2
