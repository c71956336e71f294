"""A published model of the families, with sizes from public code and model cards; see `anyblock_conformance.published`."""

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


def with_a_further_token(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """A tensor of those that predict further tokens, which transformers leaves out."""
    return shapes | {"mtp.fc.weight": Shape("BF16", (2048, 4096))}


test_published = published_tests(
    [
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
    ]
)
