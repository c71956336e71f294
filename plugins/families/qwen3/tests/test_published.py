"""Published models of the family; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}

test_published = published_tests(
    [
        Published(
            "Qwen3-8B",
            {
                **QWEN3,
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "max_window_layers": 36,
                "num_attention_heads": 32,
                "num_hidden_layers": 36,
                "tie_word_embeddings": False,
            },
            params=8_190_735_360,
            kv_bytes=2 * 2 * 36 * 8 * 128 * 40960,
            length=40960,
        ),
        Published(
            "Qwen3-0.6B",
            {
                **QWEN3,
                "hidden_size": 1024,
                "intermediate_size": 3072,
                "max_window_layers": 28,
                "num_attention_heads": 16,
                "num_hidden_layers": 28,
                "tie_word_embeddings": True,
            },
            params=596_049_920,
            kv_bytes=4 * 28 * 2 * 2**30 // 64,
            batch=4,
            length=8192,
        ),
    ]
)
