"""Published models of the family; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

PHI = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "torch_dtype": "bfloat16",
}

test_published = published_tests(
    [
        Published(
            "Phi-3-mini-4k-instruct",
            {
                **PHI,
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "max_position_embeddings": 4096,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
                "num_key_value_heads": 32,
                "pad_token_id": 32000,
                "rope_theta": 10000.0,
                "sliding_window": 2047,
                "tie_word_embeddings": False,
                "vocab_size": 32064,
            },
            params=3_821_079_552,
            kv_bytes=2 * 2 * 32 * 32 * 96 * 2046,  # the window's last token is the one that is computed
        ),
        Published(
            "phi-4",
            {
                **PHI,
                "bos_token_id": 100257,
                "eos_token_id": 100257,
                "hidden_size": 5120,
                "intermediate_size": 17920,
                "max_position_embeddings": 16384,
                "num_attention_heads": 40,
                "num_hidden_layers": 40,
                "num_key_value_heads": 10,
                "original_max_position_embeddings": 16384,
                "pad_token_id": 100257,
                "rope_theta": 250000,
                "sliding_window": None,
                "tie_word_embeddings": False,
                "vocab_size": 100352,
            },
            params=14_659_507_200,
            kv_bytes=2 * 2 * 40 * 10 * 128 * 16384,
            length=16384,
        ),
        Published(
            "Phi-4-mini-instruct",
            {
                **PHI,
                "bos_token_id": 199999,
                "eos_token_id": 199999,
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "max_position_embeddings": 131072,
                "num_attention_heads": 24,
                "num_hidden_layers": 32,
                "num_key_value_heads": 8,
                "original_max_position_embeddings": 4096,
                "pad_token_id": 199999,
                "partial_rotary_factor": 0.75,
                "rope_scaling": {"type": "longrope", "long_factor": [2.0] * 48, "short_factor": [1.0] * 48},
                "rope_theta": 10000.0,
                "sliding_window": 262144,
                "tie_word_embeddings": True,
                "vocab_size": 200064,
            },
            params=3_836_021_760,
            kv_bytes=16 * 2**30,
            length=131072,
        ),
    ]
)
