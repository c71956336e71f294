"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

test_published = published_tests(
    [
        Published(
            "ERNIE-4.5-21B-A3B-PT",
            {
                "architectures": ["Ernie4_5_MoeForCausalLM"],
                "model_type": "ernie4_5_moe",
                "hidden_size": 2560,
                "intermediate_size": 12288,
                "max_position_embeddings": 131072,
                "moe_intermediate_size": 1536,
                "moe_k": 6,
                "moe_layer_end_index": 27,
                "moe_layer_interval": 1,
                "moe_layer_start_index": 1,
                "moe_num_experts": 64,
                "moe_num_shared_experts": 2,
                "num_attention_heads": 20,
                "num_hidden_layers": 28,
                "num_key_value_heads": 4,
                "rms_norm_eps": 1e-05,
                "rope_theta": 500000.0,
                "tie_word_embeddings": True,
                "torch_dtype": "bfloat16",
                "use_bias": False,
                "vocab_size": 103424,
            },
            params=21_825_437_888,
            kv_bytes=2 * 2 * 28 * 4 * 128 * 131072,
            length=131072,
        ),
    ]
)
