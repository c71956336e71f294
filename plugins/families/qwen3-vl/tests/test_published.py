"""Published models of the family, configs nested as they are published; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.headers import Shape
from anyblock_conformance.published import Published, published_tests

VISION = {
    "deepstack_visual_indexes": [8, 16, 24],
    "depth": 27,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "in_channels": 3,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
TEXT = {
    "attention_bias": False,
    "dtype": "bfloat16",
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "num_attention_heads": 32,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    "rope_theta": 5000000,
    "vocab_size": 151936,
}
TOKENS = {
    "image_token_id": 151655,
    "tie_word_embeddings": False,
    "video_token_id": 151656,
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}
VL_8B: dict[str, Any] = {
    **TOKENS,
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "text_config": {
        **TEXT,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "model_type": "qwen3_vl_text",
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
    },
    "vision_config": {**VISION, "model_type": "qwen3_vl", "out_hidden_size": 4096},
}
VL_30B_A3B: dict[str, Any] = {
    **TOKENS,
    "architectures": ["Qwen3VLMoeForConditionalGeneration"],
    "model_type": "qwen3_vl_moe",
    "text_config": {
        **TEXT,
        "decoder_sparse_step": 1,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "mlp_only_layers": [],
        "model_type": "qwen3_vl_moe_text",
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
    },
    "vision_config": {**VISION, "model_type": "qwen3_vl_moe", "out_hidden_size": 2048},
}


def inputs_first(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The experts' weights as `[experts, in, out]`, as they are published."""
    return {
        name: Shape(shape.dtype, (shape.sizes[0], shape.sizes[2], shape.sizes[1])) if ".experts." in name else shape
        for name, shape in shapes.items()
    }


test_published = published_tests(
    [
        Published("Qwen3-VL-8B", VL_8B, params=8_767_123_696, kv_bytes=36 * 2 * 8 * 128 * 2 * 32768, length=32768),
        Published(
            "Qwen3-VL-30B-A3B",
            VL_30B_A3B,
            params=31_070_754_032,
            kv_bytes=4 * 48 * 2 * 4 * 128 * 2 * 32768,
            batch=4,
            length=32768,
            slow=True,
            stored=inputs_first,
        ),
    ]
)
