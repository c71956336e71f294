"""Published models of the family; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

test_published = published_tests(
    [
        Published(
            "Mistral-7B-v0.1",
            {
                **MISTRAL,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "max_position_embeddings": 32768,
                "num_hidden_layers": 32,
                "rope_theta": 10000.0,
                "sliding_window": 4096,
                "vocab_size": 32000,
            },
            params=7_241_732_096,
            kv_bytes=2 * 2 * 32 * 8 * 128 * 4095,  # the window's last token is the one that is computed
            length=32768,
        ),
        Published(
            "Mistral-Small-24B-2501",
            {
                **MISTRAL,
                "head_dim": 128,
                "hidden_size": 5120,
                "intermediate_size": 32768,
                "max_position_embeddings": 32768,
                "num_hidden_layers": 40,
                "rope_theta": 100000000.0,
                "sliding_window": None,
                "vocab_size": 131072,
            },
            params=23_572_403_200,
            kv_bytes=5 * 2**30,
            length=32768,
        ),
        Published(
            "Ministral-8B-Instruct-2410",
            {
                **MISTRAL,
                "architectures": ["MinistralForCausalLM"],
                "model_type": "ministral",
                "head_dim": 128,
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"] * 9,
                "max_position_embeddings": 131072,
                "num_hidden_layers": 36,
                "rope_theta": 100000000.0,
                "sliding_window": 32768,
                "vocab_size": 131072,
            },
            params=8_019_808_256,
            kv_bytes=2 * 2 * 8 * 128 * (9 * 131072 + 27 * 32767),
            length=131072,
        ),
    ]
)
