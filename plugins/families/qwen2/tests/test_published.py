"""Published models of the family; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

QWEN2_5 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}

test_published = published_tests(
    [
        Published(
            "Qwen2.5-7B",
            {
                **QWEN2_5,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "max_window_layers": 28,
                "num_attention_heads": 28,
                "num_hidden_layers": 28,
                "num_key_value_heads": 4,
                "tie_word_embeddings": False,
                "vocab_size": 152064,
            },
            params=7_615_616_512,
            kv_bytes=7 * 2**30,
            length=131072,
        ),
        Published(
            "Qwen2.5-0.5B",
            {
                **QWEN2_5,
                "hidden_size": 896,
                "intermediate_size": 4864,
                "max_window_layers": 24,
                "num_attention_heads": 14,
                "num_hidden_layers": 24,
                "num_key_value_heads": 2,
                "tie_word_embeddings": True,
                "vocab_size": 151936,
            },
            params=494_032_768,
            kv_bytes=2 * 2 * 24 * 2 * 64 * 32768,
            length=32768,
        ),
    ]
)
