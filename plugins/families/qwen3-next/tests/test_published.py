"""Published models of the families, by the `config.json` of their repositories; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.headers import Shape
from anyblock_conformance.published import Published, published_tests

TEXT: dict[str, Any] = {
    "attention_bias": False,
    "full_attention_interval": 4,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
}
QWEN_3_5: dict[str, Any] = {
    **TEXT,
    "attn_output_gate": True,
    "mtp_num_hidden_layers": 1,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000000,
        "rope_type": "default",
    },
    "vocab_size": 248320,
}
SEEING: dict[str, Any] = {
    "image_token_id": 248056,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "video_token_id": 248057,
    "vision_end_token_id": 248054,
    "vision_start_token_id": 248053,
}
VISION: dict[str, Any] = {
    "depth": 27,
    "hidden_size": 1152,
    "in_channels": 3,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def delta_net(value_heads: int) -> int:
    """Bytes that one gated delta net keeps: its last four inputs in bfloat16, its state in float32."""
    return 2 * 4 * (2 * 16 * 128 + value_heads * 128) + 4 * value_heads * 128 * 128


def fused(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The experts of a layer in two tensors, as they are published."""
    found = {name: shape for name, shape in shapes.items() if ".experts." not in name}
    for name, shape in shapes.items():
        if name.endswith(".experts.0.down_proj.weight"):
            hidden, width = shape.sizes or (0, 0)
            prefix = name.removesuffix("0.down_proj.weight")
            found[f"{prefix}down_proj"] = Shape(shape.dtype, (256, hidden, width))
            found[f"{prefix}gate_up_proj"] = Shape(shape.dtype, (256, 2 * width, hidden))
    return with_a_further_token(found)


def with_a_further_token(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """A tensor of those that predict further tokens, which transformers leaves out."""
    return shapes | {"mtp.fc.weight": Shape("BF16", (2048, 4096))}


test_published = published_tests(
    [
        Published(
            "Qwen3-Next-80B-A3B-Instruct",
            {
                **TEXT,
                "architectures": ["Qwen3NextForCausalLM"],
                "model_type": "qwen3_next",
                "decoder_sparse_step": 1,
                "hidden_size": 2048,
                "intermediate_size": 5120,
                "linear_num_value_heads": 32,
                "mlp_only_layers": [],
                "moe_intermediate_size": 512,
                "norm_topk_prob": True,
                "num_attention_heads": 16,
                "num_experts": 512,
                "num_experts_per_tok": 10,
                "num_hidden_layers": 48,
                "num_key_value_heads": 2,
                "partial_rotary_factor": 0.25,
                "rope_scaling": None,
                "rope_theta": 10000000,
                "shared_expert_intermediate_size": 512,
                "torch_dtype": "bfloat16",
                "vocab_size": 151936,
            },
            params=-1,
            kv_bytes=12 * 2 * 2 * 2 * 256 * 262144 + 36 * delta_net(32),
            length=262144,
            stored=with_a_further_token,
            slow=True,
        ),
        Published(
            "Qwen3.5-27B",
            {
                **SEEING,
                "architectures": ["Qwen3_5ForConditionalGeneration"],
                "model_type": "qwen3_5",
                "text_config": {
                    **QWEN_3_5,
                    "hidden_size": 5120,
                    "intermediate_size": 17408,
                    "linear_num_value_heads": 48,
                    "model_type": "qwen3_5_text",
                    "num_attention_heads": 24,
                    "num_hidden_layers": 64,
                    "num_key_value_heads": 4,
                },
                "vision_config": {**VISION, "model_type": "qwen3_5", "out_hidden_size": 5120},
            },
            params=27_356_728_560,
            kv_bytes=16 * 2 * 2 * 4 * 256 * 262144 + 48 * delta_net(48),
            length=262144,
            stored=with_a_further_token,
            slow=True,
        ),
        Published(
            "Qwen3.5-35B-A3B",
            {
                **SEEING,
                "architectures": ["Qwen3_5MoeForConditionalGeneration"],
                "model_type": "qwen3_5_moe",
                "text_config": {
                    **QWEN_3_5,
                    "hidden_size": 2048,
                    "linear_num_value_heads": 32,
                    "model_type": "qwen3_5_moe_text",
                    "moe_intermediate_size": 512,
                    "num_attention_heads": 16,
                    "num_experts": 256,
                    "num_experts_per_tok": 8,
                    "num_hidden_layers": 40,
                    "num_key_value_heads": 2,
                    "shared_expert_intermediate_size": 512,
                },
                "vision_config": {**VISION, "model_type": "qwen3_5_moe", "out_hidden_size": 2048},
            },
            params=-1,
            kv_bytes=10 * 2 * 2 * 2 * 256 * 262144 + 30 * delta_net(32),
            length=262144,
            stored=fused,
            slow=True,
        ),
    ]
)
