"""Published models of the family; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_3_1 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": ROPE,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}

test_published = published_tests(
    [
        Published(
            "Llama-3.1-8B",
            {
                **LLAMA_3_1,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
            },
            params=8_030_261_248,
            kv_bytes=16 * 2**30,
            length=131072,
        ),
        Published(
            "Llama-3.1-70B",
            {
                **LLAMA_3_1,
                "hidden_size": 8192,
                "intermediate_size": 28672,
                "num_attention_heads": 64,
                "num_hidden_layers": 80,
            },
            params=70_553_706_496,
            kv_bytes=8 * 40 * 2**30,
            batch=8,
            length=131072,
            slow=True,
        ),
        Published(
            "SmolLM2-135M",
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": 576,
                "intermediate_size": 1536,
                "max_position_embeddings": 8192,
                "num_attention_heads": 9,
                "num_hidden_layers": 30,
                "num_key_value_heads": 3,
                "rope_theta": 100000,
                "tie_word_embeddings": True,
                "torch_dtype": "bfloat16",
                "vocab_size": 49152,
            },
            params=134_515_008,
            kv_bytes=2 * 2 * 30 * 3 * 64 * 8192,
            length=8192,
        ),
    ]
)
