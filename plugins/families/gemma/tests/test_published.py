"""Published models of the families; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

VISION = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}

test_published = published_tests(
    [
        Published(
            "gemma-2-9b",
            {
                "architectures": ["Gemma2ForCausalLM"],
                "model_type": "gemma2",
                "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
                "head_dim": 256,
                "hidden_size": 3584,
                "intermediate_size": 14336,
                "max_position_embeddings": 8192,
                "num_attention_heads": 16,
                "num_hidden_layers": 42,
                "num_key_value_heads": 8,
                "query_pre_attn_scalar": 256,
                "rope_theta": 10000.0,
                "sliding_window": 4096,
                "torch_dtype": "bfloat16",
                "vocab_size": 256000,
            },
            params=9_241_705_984,
            kv_bytes=2 * 2 * 8 * 256 * 21 * (8192 + 4095),  # the window's last token is the one that is computed
            length=8192,
        ),
        Published(
            "gemma-3-1b-it",
            {
                "architectures": ["Gemma3ForCausalLM"],
                "model_type": "gemma3_text",
                "head_dim": 256,
                "hidden_size": 1152,
                "intermediate_size": 6912,
                "max_position_embeddings": 32768,
                "num_attention_heads": 4,
                "num_hidden_layers": 26,
                "num_key_value_heads": 1,
                "query_pre_attn_scalar": 256,
                "rope_local_base_freq": 10000,
                "rope_scaling": None,
                "rope_theta": 1000000,
                "sliding_window": 512,
                "sliding_window_pattern": 6,
                "torch_dtype": "bfloat16",
                "vocab_size": 262144,
            },
            params=999_885_952,
            kv_bytes=2 * 2 * 256 * (4 * 32768 + 22 * 511),
            length=32768,
        ),
        Published(
            "gemma-3-27b-it",
            {
                "architectures": ["Gemma3ForConditionalGeneration"],
                "boi_token_index": 255999,
                "eoi_token_index": 256000,
                "image_token_index": 262144,
                "mm_tokens_per_image": 256,
                "model_type": "gemma3",
                "text_config": {
                    "head_dim": 128,
                    "hidden_size": 5376,
                    "intermediate_size": 21504,
                    "model_type": "gemma3_text",
                    "num_attention_heads": 32,
                    "num_hidden_layers": 62,
                    "num_key_value_heads": 16,
                    "query_pre_attn_scalar": 168,
                    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 1024,
                },
                "torch_dtype": "bfloat16",
                "vision_config": VISION,
            },
            params=27_432_406_640,
            kv_bytes=2 * 2 * 16 * 128 * (10 * 131072 + 52 * 1023),
            length=131072,
            slow=True,
        ),
    ]
)
