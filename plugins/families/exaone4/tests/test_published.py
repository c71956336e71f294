"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.published import Published, published_tests

EXAONE: dict[str, Any] = {
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 16.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 1000000,
    "torch_dtype": "bfloat16",
    "vocab_size": 102400,
}

test_published = published_tests(
    [
        Published(
            "EXAONE-4.0-1.2B",
            {
                **EXAONE,
                "head_dim": 64,
                "hidden_size": 2048,
                "intermediate_size": 4096,
                "layer_types": ["full_attention"] * 30,
                "max_position_embeddings": 65536,
                "num_attention_heads": 32,
                "num_hidden_layers": 30,
                "sliding_window": None,
                "sliding_window_pattern": None,
                "tie_word_embeddings": True,
            },
            params=1_279_391_488,
            kv_bytes=2 * 2 * 30 * 8 * 64 * 65536,
            length=65536,
        ),
        Published(
            "EXAONE-4.0-32B",
            {
                **EXAONE,
                "head_dim": 128,
                "hidden_size": 5120,
                "intermediate_size": 27392,
                "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 16,
                "max_position_embeddings": 131072,
                "num_attention_heads": 40,
                "num_hidden_layers": 64,
                "sliding_window": 4096,
                "sliding_window_pattern": "LLLG",
                "tie_word_embeddings": False,
            },
            params=32_003_216_384,
            kv_bytes=2 * 2 * 8 * 128 * (16 * 131072 + 48 * 4095),
            length=131072,
            slow=True,
        ),
    ]
)
