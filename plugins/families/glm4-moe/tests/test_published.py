"""Published models of the family, with sizes from public code and model cards; see `anyblock_conformance.published`."""

from typing import Any

from anyblock_conformance.headers import Shape
from anyblock_conformance.published import Published, published_tests

GLM: dict[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "attention_bias": True,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "n_group": 1,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 96,
    "num_experts_per_tok": 8,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 1,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "bfloat16",
    "vocab_size": 151552,
}


def with_a_layer_beyond(shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The layer that predicts a further token, as published: a decoder layer with some tensors of its own."""
    hidden, last = (
        shapes["model.norm.weight"],
        max(int(n.split(".")[2]) for n in shapes if n.startswith("model.layers.")),
    )
    layer, beyond = f"model.layers.{last}.", f"model.layers.{last + 1}."
    own = {beyond + name.removeprefix(layer): shape for name, shape in shapes.items() if name.startswith(layer)}
    width = hidden.sizes[0] if hidden.sizes else 0
    further = {f"{beyond}{name}.weight": hidden for name in ("enorm", "hnorm", "shared_head.norm")}
    return shapes | own | further | {f"{beyond}eh_proj.weight": Shape(hidden.dtype, (width, 2 * width))}


test_published = published_tests(
    [
        Published(
            "GLM-4.5-Air",
            {
                **GLM,
                "first_k_dense_replace": 1,
                "hidden_size": 4096,
                "intermediate_size": 10944,
                "moe_intermediate_size": 1408,
                "n_routed_experts": 128,
                "num_hidden_layers": 46,
                "routed_scaling_factor": 1.0,
                "use_qk_norm": False,
            },
            params=106_852_251_264,
            kv_bytes=2 * 2 * 46 * 8 * 128 * 131072,
            length=131072,
            stored=with_a_layer_beyond,
            slow=True,
        ),
    ]
)
