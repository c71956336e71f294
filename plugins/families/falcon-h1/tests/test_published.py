"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from anyblock_conformance.published import Published, published_tests

LAYERS, LENGTH = 36, 16384
CONVOLUTION = 2 * 4 * (24 * 64 + 2 * 128)
"""Bytes of the last four inputs of one layer's convolution, in bfloat16."""
STATE = 4 * 24 * 64 * 128
"""Bytes of one layer's state, in float32."""

test_published = published_tests(
    [
        Published(
            "Falcon-H1-0.5B-Instruct",
            {
                "architectures": ["FalconH1ForCausalLM"],
                "model_type": "falcon_h1",
                "attention_bias": False,
                "attention_in_multiplier": 1.0,
                "attention_out_multiplier": 0.9375,
                "embedding_multiplier": 5.656854249492381,
                "head_dim": 64,
                "hidden_size": 1024,
                "intermediate_size": 2048,
                "key_multiplier": 0.39062499999999994,
                "lm_head_multiplier": 0.0390625,
                "mamba_chunk_size": 128,
                "mamba_conv_bias": True,
                "mamba_d_conv": 4,
                "mamba_d_head": 64,
                "mamba_d_ssm": 1536,
                "mamba_d_state": 128,
                "mamba_expand": 2,
                "mamba_n_groups": 1,
                "mamba_n_heads": 24,
                "mamba_norm_before_gate": False,
                "mamba_proj_bias": False,
                "mamba_rms_norm": False,
                "max_position_embeddings": 16384,
                "mlp_bias": False,
                "num_attention_heads": 8,
                "num_hidden_layers": 36,
                "num_key_value_heads": 2,
                "projectors_bias": False,
                "rms_norm_eps": 1e-05,
                "rope_theta": 100000000000.0,
                "tie_word_embeddings": False,
                "torch_dtype": "bfloat16",
                "vocab_size": 32784,
            },
            params=521_411_104,
            kv_bytes=LAYERS * (2 * 2 * 2 * 64 * LENGTH + CONVOLUTION + STATE),
            length=LENGTH,
        ),
    ]
)
