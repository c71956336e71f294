"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

test_published = published_tests(
    [
        Published(
            "Llama-4-Scout-17B-16E",
            {
                "architectures": ["Llama4ForConditionalGeneration"],
                "model_type": "llama4",
                "boi_token_index": 200080,
                "eoi_token_index": 200081,
                "image_token_index": 200092,
                "text_config": {
                    "attention_bias": False,
                    "attention_chunk_size": 8192,
                    "head_dim": 128,
                    "hidden_size": 5120,
                    "interleave_moe_layer_step": 1,
                    "intermediate_size": 8192,
                    "intermediate_size_mlp": 16384,
                    "max_position_embeddings": 10485760,
                    "model_type": "llama4_text",
                    "num_attention_heads": 40,
                    "num_experts_per_tok": 1,
                    "num_hidden_layers": 48,
                    "num_key_value_heads": 8,
                    "num_local_experts": 16,
                    "rms_norm_eps": 1e-05,
                    "rope_scaling": {
                        "factor": 16.0,
                        "high_freq_factor": 1.0,
                        "low_freq_factor": 1.0,
                        "original_max_position_embeddings": 8192,
                        "rope_type": "llama3",
                    },
                    "rope_theta": 500000.0,
                    "torch_dtype": "bfloat16",
                    "use_qk_norm": True,
                    "vocab_size": 202048,
                },
                "torch_dtype": "bfloat16",
                "vision_config": {
                    "hidden_size": 1408,
                    "image_size": 336,
                    "intermediate_size": 5632,
                    "model_type": "llama4_vision_model",
                    "multi_modal_projector_bias": False,
                    "norm_eps": 1e-05,
                    "num_attention_heads": 16,
                    "num_channels": 3,
                    "num_hidden_layers": 34,
                    "patch_size": 14,
                    "pixel_shuffle_ratio": 0.5,
                    "projector_input_dim": 4096,
                    "projector_output_dim": 4096,
                    "rope_theta": 10000,
                    "vision_output_dim": 4096,
                },
            },
            params=108_641_793_536,
            kv_bytes=2 * 2 * 8 * 128 * (12 * 131072 + 36 * 8191),
            length=131072,
        ),
    ]
)
