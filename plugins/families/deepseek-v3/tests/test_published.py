"""Published models of the family, DeepSeek-V3 in FP8 as it is published; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.headers import Shape
from anyblock_conformance.published import Published, published_tests

YARN = {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 4096}
V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}
V2_LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rope_scaling": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    "rope_theta": 10000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 102400,
}


def fp8(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The linear maps of layers, but for the router, as 8-bit floats with scales; and what predicts a further token."""
    stored = {}
    for name, shape in shapes.items():
        stored[name] = shape
        if "_proj" in name and shape.sizes is not None and len(shape.sizes) == 2:
            stored[name] = Shape("F8_E4M3", shape.sizes)
            stored[f"{name}_scale_inv"] = Shape("F32", tuple(-(-size // 128) for size in shape.sizes))
    further = {name.replace("layers.60.", "layers.61."): s for name, s in stored.items() if ".layers.60." in name}
    further |= {f"model.layers.61.{name}.weight": Shape("BF16", (7168,)) for name in ("enorm", "hnorm")}
    return stored | further | {"model.layers.61.eh_proj.weight": Shape("BF16", (7168, 14336))}


test_published = published_tests(
    [
        Published(
            "DeepSeek-V2-Lite",
            V2_LITE,
            params=15_706_484_224,
            kv_bytes=8 * 4096 * 27 * (512 + 64) * 2,
            batch=8,
            budget={"params": "0.75x"},
        ),
        Published(
            "DeepSeek-V3",
            V3,
            params=671_026_419_200,
            kv_bytes=8 * 4096 * 61 * (512 + 64) * 2,
            batch=8,
            budget={"params": "0.75x", "experts": "0.8x"},
            slow=True,
            stored=fp8,
        ),
    ]
)
