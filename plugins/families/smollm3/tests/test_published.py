"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

test_published = published_tests(
    [
        Published(
            "SmolLM3-3B",
            {
                "architectures": ["SmolLM3ForCausalLM"],
                "model_type": "smollm3",
                "attention_bias": False,
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "max_position_embeddings": 65536,
                "mlp_bias": False,
                "no_rope_layer_interval": 4,
                "no_rope_layers": [1, 1, 1, 0] * 9,
                "num_attention_heads": 16,
                "num_hidden_layers": 36,
                "num_key_value_heads": 4,
                "rope_scaling": None,
                "rope_theta": 5000000.0,
                "sliding_window": None,
                "tie_word_embeddings": True,
                "torch_dtype": "bfloat16",
                "use_sliding_window": False,
                "vocab_size": 128256,
            },
            params=3_075_098_624,
            kv_bytes=2 * 2 * 36 * 4 * 128 * 65536,
            length=65536,
        ),
    ]
)
