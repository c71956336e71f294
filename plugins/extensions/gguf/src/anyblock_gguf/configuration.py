"""transformers' configuration of the model in a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import gguf
import numpy as np
from anyblock.errors import CheckpointError, ConfigError, UnsupportedModelError

from anyblock_gguf.families import families
from anyblock_gguf.rope import rope_factors

if TYPE_CHECKING:
    from anyblock_gguf.architecture import Architecture
    from anyblock_gguf.reading import GgufFile

_MODEL_TYPES: Final = {
    "llama": "llama", "granite": "granite", "smollm3": "smollm3", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe",
    "olmoe": "olmoe", "gemma2": "gemma2", "gemma3": "gemma3_text", "phi3": "phi3", "olmo2": "olmo3",
}  # fmt: skip
_EXPERTS: Final = {"num_experts_per_tok": "expert_used_count"}
_MORE: Final[Mapping[str, Mapping[str, str]]] = {
    "mixtral": {**_EXPERTS, "num_local_experts": "expert_count"},
    "qwen3_moe": {**_EXPERTS, "num_experts": "expert_count", "moe_intermediate_size": "expert_feed_forward_length"},
    "olmoe": {**_EXPERTS, "num_experts": "expert_count"},
    "granite": {
        "embedding_multiplier": "embedding_scale", "attention_multiplier": "attention.scale",
        "residual_multiplier": "residual_scale", "logits_scaling": "logit_scale",
    },
    "gemma2": {"sliding_window": "attention.sliding_window"},
    "gemma3_text": {"sliding_window": "attention.sliding_window"},
    "olmo3": {"sliding_window": "attention.sliding_window"},
}  # fmt: skip
"""`{model type: {attribute: key}}`, next to the sizes that all have."""
_STATED: Final[Mapping[str, Mapping[str, Any]]] = {
    "mixtral": {"sliding_window": None},
    "qwen3_moe": {"norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 1},
    "olmoe": {"norm_topk_prob": False, "clip_qkv": None},
    "smollm3": {"use_sliding_window": False, "no_rope_layer_interval": 4},
    "phi3": {"sliding_window": None},
}
"""What llama.cpp's architecture says of a model by itself."""
_SCALE_OF_ITS_OWN: Final = {("gemma2", 46), ("gemma3_text", 62)}
"""Gemma's models of 27B, by their layers, whose attention llama.cpp scales by hidden size / heads."""
_IDLE: Final = {
    "rope.scaling.type": ("none",), "attention.causal": (True,), "expert_count": (0,), "expert_used_count": (0,),
    "expert_gating_func": (1,), "attention.clamp_kqv": (0.0,), "rope.scaling.finetuned": (False, True),
}  # fmt: skip
"""Keys that say what holds without them, with such values."""
_PHI: Final = ("attention.sliding_window", "rope.scaling.original_context_length")
"""What files of Phi-3 say and llama.cpp takes no notice of."""


def configuration(file: GgufFile) -> Any:
    """Return transformers' configuration.

    Raises:
        UnsupportedModelError: models of the file's architecture are not read.
        CheckpointError: a size is missing, or differs from layer to layer.
        ConfigError: transformers refuses the values.
    """
    from transformers import AutoConfig

    name = file.fields.get("general.architecture")
    if name not in _MODEL_TYPES or "token_embd.weight" not in file.tensors:
        raise UnsupportedModelError(
            f"{file.path} holds a model of llama.cpp's architecture {name}",
            expected=f"one of {', '.join(_MODEL_TYPES)}, with its embeddings",
            hint="use the Hugging Face checkpoint that it was made from",
        )
    model_type = "mixtral" if name == "llama" and file.fields.get("llama.expert_count") else _MODEL_TYPES[name]
    heads, hidden, layers = (_stated(file, key) for key in ("attention.head_count", "embedding_length", "block_count"))
    width = _stated(file, "attention.key_length", hidden // heads)
    values: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": _stated(file, "attention.head_count_kv", heads),
        "head_dim": width,
        "intermediate_size": _stated(file, "feed_forward_length"),
        "max_position_embeddings": _stated(file, "context_length"),
        "rms_norm_eps": _stated(file, "attention.layer_norm_rms_epsilon"),
        "vocab_size": file.shape("token_embd.weight")[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": _rope(file, model_type, width),
        **{f"{kind}_token_id": file.fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos")},
        "pad_token_id": file.fields.get("tokenizer.ggml.padding_token_id"),
        **{key: _stated(file, of) for key, of in _MORE.get(model_type, {}).items()},
        **_STATED.get(model_type, {}),
    }
    if model_type in ("llama", "granite"):
        values |= {
            "attention_bias": "blk.0.attn_q.bias" in file.tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        }
    if model_type.startswith("gemma"):
        own = (model_type, layers) in _SCALE_OF_ITS_OWN
        values["query_pre_attn_scalar"] = hidden // heads if own else width
    if model_type == "gemma2":
        values["attn_logit_softcapping"] = _stated(file, "attn_logit_softcapping", 50.0)
        values["final_logit_softcapping"] = _stated(file, "final_logit_softcapping", 30.0)
    try:
        config = AutoConfig.for_model(model_type, **values)
    except Exception as error:  # whatever its class raises
        raise ConfigError(f"{file.path}: transformers refuses the sizes of the {model_type} model: {error}") from error
    if "rope_freqs.weight" in file.tensors:
        _add_factors(file, config)
    return config


def architecture_of(file: GgufFile, config: Any) -> Architecture:
    """Return the architecture with which the export writes a model of this configuration."""
    kind = families()[config.model_type][0]
    return kind([config] * config.num_hidden_layers, range(config.num_hidden_layers), [])


def require_same_metadata(file: GgufFile, architecture: Architecture) -> None:
    """Check that the export writes for the configuration what the file says of the model.

    Raises:
        CheckpointError: names what the configuration does not say.
    """
    writer = gguf.GGUFWriter(None, architecture.name)
    architecture.metadata(writer)
    written = {key: own.value for part in writer.kv_data for key, own in part.items()}
    for key, value in file.fields.items():
        prefix, _, short = key.partition(".")
        if prefix != architecture.name or value in _IDLE.get(short, ()) or (prefix == "phi3" and short in _PHI):
            continue
        if key not in written or not _same(written[key], value):
            said = (
                f"where a {architecture.config.model_type} model has {written[key]}"
                if key in written
                else "which is not read"
            )
            raise CheckpointError(
                f"{file.path} says {key} = {value}, {said}",
                hint="use the Hugging Face checkpoint that it was made from",
            )


def _same(mine: Any, given: Any) -> bool:
    if isinstance(mine, str) or isinstance(given, str):
        return bool(mine == given)
    return bool(np.allclose(np.asarray(mine, dtype=np.float64), np.asarray(given, dtype=np.float64), rtol=1e-6, atol=0))


def _stated(file: GgufFile, key: str, default: Any = None) -> Any:
    value = file.fields.get(f"{file.fields['general.architecture']}.{key}", default)
    if value is None:
        raise CheckpointError(f"{file.path} does not say {key}", expected="a whole GGUF file of a model")
    if isinstance(value, list) and len({*value}) == 1:
        return value[0]
    if isinstance(value, list):
        raise CheckpointError(
            f"{file.path} has layers whose {key} differ",
            expected="layers that are alike",
            hint="use a model that was not pruned",
        )
    return value


def _rope(file: GgufFile, model_type: str, width: int) -> dict[str, Any]:
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": _stated(file, "rope.freq_base", 10000.0)}
    rotated = _stated(file, "rope.dimension_count", width)
    if rotated != width:
        found["partial_rotary_factor"] = rotated / width
    kind = _stated(file, "rope.scaling.type", "none")
    if kind in ("linear", "yarn"):
        found |= {"rope_type": kind, "factor": _stated(file, "rope.scaling.factor")}
    if kind == "yarn":
        found["original_max_position_embeddings"] = _stated(file, "rope.scaling.original_context_length")
        found["beta_fast"] = _stated(file, "rope.scaling.yarn_beta_fast", 32.0)
        found["beta_slow"] = _stated(file, "rope.scaling.yarn_beta_slow", 1.0)
    if model_type != "gemma3_text":
        return found
    windowed = {"rope_type": "default", "rope_theta": _stated(file, "rope.freq_base_swa", 10000.0)}
    return {"full_attention": found, "sliding_attention": windowed}


def _add_factors(file: GgufFile, config: Any) -> None:
    """Find the scaling of Llama 3 whose factors the file has: its four numbers are not in the file."""
    given, plain = file.read("rope_freqs.weight"), config.rope_parameters
    for factor in (8.0, 32.0, 2.0, 4.0, 16.0, 64.0):
        for original in (8192, 4096, 2048, 32):
            numbers = {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            config.rope_parameters = {
                **plain, "rope_type": "llama3", **numbers, "original_max_position_embeddings": original
            }  # fmt: skip
            factors = rope_factors(config)
            if factors is not None and factors.shape == given.shape and np.allclose(factors, given, rtol=1e-4):
                return
    raise CheckpointError(
        f"{file.path} scales its rotary embedding by factors (rope_freqs.weight) of no Llama 3 that is known",
        hint="use the Hugging Face checkpoint that it was made from",
    )
