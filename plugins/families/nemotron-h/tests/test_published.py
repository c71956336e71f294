"""Published models of the family; see `anyblock_conformance.published`."""

import math
from typing import Any

from anyblock_conformance.published import Published, published_tests

COMMON: dict[str, Any] = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "attention_bias": False,
    "chunk_size": 128,
    "conv_kernel": 4,
    "expand": 2,
    "head_dim": 128,
    "layer_norm_epsilon": 1e-05,
    "mamba_hidden_act": "silu",
    "mamba_proj_bias": False,
    "mlp_bias": False,
    "mlp_hidden_act": "relu2",
    "n_groups": 8,
    "ssm_state_size": 128,
    "tie_word_embeddings": False,
    "time_step_limit": [0.0, math.inf],
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_conv_bias": True,
    "vocab_size": 131072,
}
NANO_2 = COMMON | {
    "hidden_size": 5120,
    "hybrid_override_pattern": "M-M-M-M*-" * 6 + "M-M-M-M-",
    "intermediate_size": 20480,
    "mamba_head_dim": 80,
    "mamba_num_heads": 128,
    "max_position_embeddings": 131072,
    "num_attention_heads": 40,
    "num_hidden_layers": 62,
    "num_key_value_heads": 8,
}
NANO_3 = COMMON | {
    "hidden_size": 2688,
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "intermediate_size": 1856,
    "mamba_head_dim": 64,
    "mamba_num_heads": 64,
    "max_position_embeddings": 262144,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "n_group": 1,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 52,
    "num_key_value_heads": 2,
    "routed_scaling_factor": 2.5,
    "topk_group": 1,
}


def cache(config: dict[str, Any], batch: int, length: int) -> int:
    """Keys and values in bfloat16; of a Mamba four inputs of its convolution in bfloat16 and its state in float32."""
    pattern = config["hybrid_override_pattern"]
    inner = config["mamba_num_heads"] * config["mamba_head_dim"]
    mamba = 2 * 4 * (inner + 2 * 8 * 128) + 4 * inner * 128
    return batch * (
        pattern.count("M") * mamba + pattern.count("*") * 2 * 2 * config["num_key_value_heads"] * 128 * length
    )


test_published = published_tests(
    [
        Published(
            "Nemotron-Nano-12B-v2",
            NANO_2,
            params=12_310_001_152,
            kv_bytes=cache(NANO_2, 8, 16384),
            batch=8,
            length=16384,
        ),
        Published(
            "Nemotron-3-Nano-30B-A3B",
            NANO_3,
            params=31_577_940_288,
            kv_bytes=cache(NANO_3, 1, 262144),
            length=262144,
            slow=True,
        ),
    ]
)
