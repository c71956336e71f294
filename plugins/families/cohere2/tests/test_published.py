"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

test_published = published_tests(
    [
        Published(
            "c4ai-command-r7b-12-2024",
            {
                "architectures": ["Cohere2ForCausalLM"],
                "model_type": "cohere2",
                "attention_bias": False,
                "head_dim": 128,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "layer_norm_eps": 1e-05,
                "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 8,
                "logit_scale": 0.25,
                "max_position_embeddings": 132096,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
                "num_key_value_heads": 8,
                "position_embedding_type": "rope_gptj",
                "rope_scaling": None,
                "rope_theta": 50000,
                "sliding_window": 4096,
                "sliding_window_pattern": 4,
                "torch_dtype": "bfloat16",
                "use_embedding_sharing": True,
                "use_gated_activation": True,
                "use_parallel_block": True,
                "vocab_size": 256000,
            },
            params=8_028_033_024,
            kv_bytes=2 * 2 * 8 * 128 * (8 * 131072 + 24 * 4095),
            length=131072,
        ),
    ]
)
