"""Published models of the family, in MXFP4 as they are published; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.headers import Shape
from anyblock_conformance.published import Published, published_tests


def config(layers: int, experts: int) -> dict[str, Any]:
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "experts_per_token": 4,
        "head_dim": 64,
        "hidden_size": 2880,
        "initial_context_length": 4096,
        "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "num_local_experts": experts,
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        },
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "vocab_size": 201088,
    }


def mxfp4(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The experts' weights as blocks of 32 inputs, sixteen bytes and a scale each."""
    stored = {}
    for name, shape in shapes.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, inputs, outputs = shape.sizes or ()
            stored[f"{name}_blocks"] = Shape("U8", (experts, outputs, inputs // 32, 16))
            stored[f"{name}_scales"] = Shape("U8", (experts, outputs, inputs // 32))
        else:
            stored[name] = shape
    return stored


def cache(layers: int, batch: int, length: int) -> int:
    """Keys and values of 8 heads of 64, in bfloat16; every other layer keeps the last 127 tokens."""
    return batch * layers // 2 * (length + 127) * 2 * 8 * 64 * 2


test_published = published_tests(
    [
        Published(
            "gpt-oss-20b",
            config(24, 32),
            params=20_914_757_184,
            kv_bytes=cache(24, 16, 8192),
            batch=16,
            length=8192,
            stored=mxfp4,
        ),
        Published(
            "gpt-oss-120b",
            config(36, 128),
            params=116_829_156_672,
            kv_bytes=cache(36, 1, 131072),
            length=131072,
            slow=True,
            stored=mxfp4,
        ),
    ]
)
