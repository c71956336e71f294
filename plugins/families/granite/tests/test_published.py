"""Published models of both families, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.published import Published, published_tests

GRANITE_4: dict[str, Any] = {
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "model_type": "granitemoehybrid",
    "attention_bias": False,
    "attention_multiplier": 0.0078125,
    "embedding_multiplier": 12,
    "layer_types": [*["mamba"] * 5, "attention", *(["mamba"] * 9 + ["attention"]) * 3, *["mamba"] * 4],
    "mamba_chunk_size": 256,
    "mamba_conv_bias": True,
    "mamba_d_conv": 4,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_proj_bias": False,
    "max_position_embeddings": 131072,
    "normalization_function": "rmsnorm",
    "num_hidden_layers": 40,
    "position_embedding_type": "nope",
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 100352,
}


def mamba(heads: int) -> int:
    """Bytes that one Mamba keeps: its last four inputs in bfloat16, its state in float32."""
    return 2 * 4 * (heads * 64 + 2 * 128) + 4 * heads * 64 * 128


test_published = published_tests(
    [
        Published(
            "granite-3.1-2b-base",
            {
                "architectures": ["GraniteForCausalLM"],
                "model_type": "granite",
                "attention_bias": False,
                "attention_multiplier": 0.015625,
                "embedding_multiplier": 12.0,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "logits_scaling": 8.0,
                "max_position_embeddings": 131072,
                "mlp_bias": False,
                "num_attention_heads": 32,
                "num_hidden_layers": 40,
                "num_key_value_heads": 8,
                "residual_multiplier": 0.22,
                "rms_norm_eps": 1e-05,
                "rope_scaling": None,
                "rope_theta": 5000000.0,
                "tie_word_embeddings": True,
                "torch_dtype": "bfloat16",
                "vocab_size": 49155,
            },
            params=2_533_531_648,
            kv_bytes=2 * 2 * 40 * 8 * 64 * 131072,
            length=131072,
        ),
        Published(
            "granite-4.0-h-tiny",
            {
                **GRANITE_4,
                "hidden_size": 1536,
                "intermediate_size": 512,
                "logits_scaling": 6,
                "mamba_n_heads": 48,
                "num_attention_heads": 12,
                "num_experts_per_tok": 6,
                "num_key_value_heads": 4,
                "num_local_experts": 64,
                "shared_intermediate_size": 1024,
            },
            params=6_939_037_248,
            kv_bytes=2 * 2 * 4 * 4 * 128 * 131072 + 36 * mamba(48),
            length=131072,
            # The state of a Mamba is there whatever the length is.
            budget={"params": "0.75x", "kv_memory": "0.9x"},
        ),
        Published(
            "granite-4.0-h-small",
            {
                **GRANITE_4,
                "hidden_size": 4096,
                "intermediate_size": 768,
                "logits_scaling": 16,
                "mamba_n_heads": 128,
                "num_attention_heads": 32,
                "num_experts_per_tok": 10,
                "num_key_value_heads": 8,
                "num_local_experts": 72,
                "shared_intermediate_size": 1536,
            },
            params=32_207_337_984,
            kv_bytes=2 * 2 * 4 * 8 * 128 * 131072 + 36 * mamba(128),
            length=131072,
            budget={"params": "0.75x", "kv_memory": "0.9x"},
            slow=True,
        ),
    ]
)
