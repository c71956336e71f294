"""Published models of the family; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

test_published = published_tests(
    [
        Published(
            "OLMoE-1B-7B-0924",
            {
                "architectures": ["OlmoeForCausalLM"],
                "model_type": "olmoe",
                "attention_bias": False,
                "clip_qkv": None,
                "hidden_size": 2048,
                "intermediate_size": 1024,
                "max_position_embeddings": 4096,
                "norm_topk_prob": False,
                "num_attention_heads": 16,
                "num_experts": 64,
                "num_experts_per_tok": 8,
                "num_hidden_layers": 16,
                "num_key_value_heads": 16,
                "rope_theta": 10000.0,
                "tie_word_embeddings": False,
                "torch_dtype": "bfloat16",
                "vocab_size": 50304,
            },
            params=6_919_161_856,
            kv_bytes=2**29,
        ),
    ]
)
