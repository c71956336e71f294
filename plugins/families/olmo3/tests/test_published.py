"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.published import Published, published_tests

OLMO_3: dict[str, Any] = {
    "architectures": ["Olmo3ForCausalLM"],
    "model_type": "olmo3",
    "attention_bias": False,
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "attention_factor": 1.2079441541679836,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "yarn",
    },
    "rope_theta": 500000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 100278,
}

test_published = published_tests(
    [
        Published(
            "Olmo-3-1025-7B",
            {
                **OLMO_3,
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 8,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
                "num_key_value_heads": 32,
            },
            params=7_298_011_136,
            kv_bytes=2 * 2 * 32 * 128 * (8 * 65536 + 24 * 4095),
            length=65536,
        ),
        Published(
            "Olmo-3-1125-32B",
            {
                **OLMO_3,
                "hidden_size": 5120,
                "intermediate_size": 27648,
                "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 16,
                "num_attention_heads": 40,
                "num_hidden_layers": 64,
                "num_key_value_heads": 8,
            },
            params=32_233_522_176,
            kv_bytes=2 * 2 * 8 * 128 * (16 * 65536 + 48 * 4095),
            length=65536,
            slow=True,
        ),
    ]
)
