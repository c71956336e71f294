"""Published models of the family, in FP8 as they are published, with sizes from public code and model cards.

See `anyblock_conformance.published`.
"""

from anyblock_conformance.headers import Shape
from anyblock_conformance.published import Published, published_tests


def fp8(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The linear maps of layers, but for the router, as 8-bit floats with scales, blocks of 128 by 128."""
    found = dict(shapes)
    for name, shape in shapes.items():
        if name.endswith("_proj.weight") or ".experts." in name:
            rows, columns = shape.sizes or (0, 0)
            found[name] = Shape("F8_E4M3", (rows, columns))
            found[f"{name}_scale_inv"] = Shape("F32", (-(-rows // 128), -(-columns // 128)))
    return found


test_published = published_tests(
    [
        Published(
            "MiniMax-M2",
            {
                "architectures": ["MiniMaxM2ForCausalLM"],
                "model_type": "minimax_m2",
                "head_dim": 128,
                "hidden_size": 3072,
                "intermediate_size": 1536,
                "max_position_embeddings": 196608,
                "mtp_transformer_layers": 1,
                "num_attention_heads": 48,
                "num_experts_per_tok": 8,
                "num_hidden_layers": 62,
                "num_key_value_heads": 8,
                "num_local_experts": 256,
                "num_mtp_modules": 3,
                "qk_norm_type": "per_layer",
                "quantization_config": {
                    "activation_scheme": "dynamic",
                    "fmt": "float8_e4m3fn",
                    "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
                    "quant_method": "fp8",
                    "weight_block_size": [128, 128],
                },
                "rms_norm_eps": 1e-06,
                "rope_theta": 5000000,
                "rotary_dim": 64,
                "scoring_func": "sigmoid",
                "shared_intermediate_size": 0,
                "tie_word_embeddings": False,
                "torch_dtype": "bfloat16",
                "use_mtp": True,
                "use_qk_norm": True,
                "use_routing_bias": True,
                "vocab_size": 200064,
            },
            params=228_689_764_864,
            kv_bytes=2 * 2 * 62 * 8 * 128 * 196608,
            length=196608,
            stored=fp8,
            slow=True,
        ),
    ]
)
