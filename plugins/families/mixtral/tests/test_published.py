"""Published models of the family; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_experts_per_tok": 2,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}

test_published = published_tests(
    [
        Published(
            "Mixtral-8x7B-v0.1",
            {
                **MIXTRAL,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "max_position_embeddings": 32768,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
            },
            params=46_702_792_704,
            kv_bytes=4 * 2**30,
            length=32768,
        ),
        Published(
            "Mixtral-8x22B-v0.1",
            {
                **MIXTRAL,
                "hidden_size": 6144,
                "intermediate_size": 16384,
                "max_position_embeddings": 65536,
                "num_attention_heads": 48,
                "num_hidden_layers": 56,
            },
            params=140_620_634_112,
            kv_bytes=14 * 2**30,
            length=65536,
            slow=True,
        ),
    ]
)
