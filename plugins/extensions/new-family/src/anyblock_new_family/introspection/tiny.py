"""A tiny configuration of any model type, small enough to build and run many times on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyblock.errors import UnsupportedModelError

LAYERS: Final = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "decoder_layers",
    "num_decoder_layers",
    "encoder_layers",
    "num_encoder_layers",
    "num_blocks",
)
SIZES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("vocab_size",), 128),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "emb_dim", "embed_dim", "embedding_size", "attention_hidden_size"), 32
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "dim_ff"), 48
    ),
    **dict.fromkeys(
        ("ffn_hidden_size", "dense_intermediate_size", "intermediate_size_mlp", "d_inner", "mamba_d_ssm"), 48
    ),
    **dict.fromkeys(LAYERS, 2),
    **dict.fromkeys(("depth",), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "attention_head_dim", "dim_head", "swa_head_dim", "v_head_dim", "swa_v_head_dim"), 8),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_target_positions", "max_source_positions"), 64
    ),
    **dict.fromkeys(("max_seq_len", "block_size", "context_length"), 64),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "expert_dim", "expert_intermediate_size"), 16),
    **dict.fromkeys(
        ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"), 24
    ),
    **dict.fromkeys(
        ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "num_routed_experts"), 4
    ),
    **dict.fromkeys(
        ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts", "num_experts_per_token", "moe_top_k"), 2
    ),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "zero_expert_num"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "topk_group"), 1),
    **dict.fromkeys(("n_group", "num_group", "num_expert_group", "num_expert_groups"), 1),
    **dict.fromkeys(("q_lora_rank",), 12),
    **dict.fromkeys(("kv_lora_rank", "qk_nope_head_dim", "index_head_dim", "o_lora_rank"), 8),
    **dict.fromkeys(("qk_rope_head_dim",), 4),
    **dict.fromkeys(("index_n_heads", "index_topk", "num_ngram_heads"), 4),
    **dict.fromkeys(("mamba_num_heads", "mamba_n_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(
        ("mamba_head_dim", "mamba_d_head", "mamba_d_state", "ssm_state_size", "state_size", "mamba_state_size"), 8
    ),
    **dict.fromkeys(("n_mamba_groups", "mamba_n_groups", "mamba_ngroups", "mamba_num_groups"), 1),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "mamba_dt_rank", "time_step_rank"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_heads"), 2),
    **dict.fromkeys(("linear_num_value_heads",), 4),
    **dict.fromkeys(("lru_width", "attention_window_size", "sliding_window", "attention_chunk_size"), 32),
    **dict.fromkeys(("hidden_size_per_layer_input", "vocab_size_per_layer_input"), 8),
    **dict.fromkeys(("altup_num_inputs",), 2),
    **dict.fromkeys(("rotary_dim",), 4),
    **dict.fromkeys(("attn_layer_period", "expert_layer_period"), 2),
    **dict.fromkeys(("attn_layer_offset", "expert_layer_offset"), 1),
    **dict.fromkeys(("block_multiple_of", "multiple_of"), 8),
}
"""The value of every configuration attribute that is a size, by the names that transformers gives them."""
SMALLER: Final[Mapping[str, int]] = {"sliding_window": 7, "attention_window_size": 7, "vocab_size_per_layer_input": 128}
OPTIONAL: Final = ("attention_bias", "mlp_bias", "use_bias", "add_bias_linear", "use_qkv_bias", "qkv_bias")
"""Switches of tensors that a model may have or not; a tiny model has them."""
DROPPED: Final = object()
CHANGES: Final[tuple[Mapping[str, Any], ...]] = (
    {},
    {"qk_rope_head_dim": 8, "rotary_dim": 8, "head_dim": 8, "qk_nope_head_dim": 8},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 4, "qk_rope_head_dim": 8, "head_dim": 8, "rotary_dim": 8},
    {"layer_types": ["linear_attention", "full_attention"]},
    {"layer_types": ["conv", "full_attention"]},
    {"attn_layer_indices": [1]},
    {"num_kv_shared_layers": 0},
    {"num_heads": 8, "mamba_d_ssm": 64},
    {"mamba_n_heads": 4, "mamba_num_heads": 4, "n_mamba_heads": 4, "mamba_d_ssm": 32},
    {"head_dim": DROPPED},
    {"attention_hidden_size": DROPPED, "attention_head_dim": DROPPED},
    {"layer_types": DROPPED},
    {"num_experts_per_tok": 1},
    {"default_language": "en_XX"},
    {"layer_types": ["sliding_attention", "full_attention"]},
    {"hidden_size": 128},  # xLSTM keeps states whose sizes are rounded up, and computes others
)
"""What is tried in turn when a model cannot be built or run with the usual sizes; `DROPPED` leaves a value out."""
_WITHOUT_ROPE: Final = ({"rope_parameters": DROPPED, "rope_scaling": DROPPED},)
"""Rotary factors may be lists that fit a head's width; they are no structure."""
VISION: Final[Mapping[str, int]] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim", "out_hidden_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "depth", "layers"), 1),
    **dict.fromkeys(("num_attention_heads", "num_heads"), 2),
    "image_size": 28,
    "patch_size": 14,
}


@dataclass(frozen=True)
class TinyConfig:
    """How a tiny configuration is made, as data.

    Attributes:
        config_class: dotted path of the configuration class.
        values: what differs from the class's own defaults.
    """

    config_class: str
    values: Mapping[str, Any]

    def make(self) -> Any:
        """Return the configuration."""
        import copy

        from anyblock.descriptors.base import import_dotted

        return import_dotted(self.config_class)(**copy.deepcopy(dict(self.values)))


def tiny_candidates(config_class: type[Any], given: Any = None) -> Iterator[TinyConfig]:
    """Yield tiny configurations of a class: with its own defaults the one with most optional tensors first.

    Args:
        config_class: the class.
        given: a configuration whose structure they keep (switches, kinds of layers, what it has none of); None for the
            class's own defaults.

    Raises:
        UnsupportedModelError: the class cannot be made with its own defaults.
    """
    path = f"{config_class.__module__}.{config_class.__qualname__}"
    start = default_config(config_class) if given is None else given
    values, text = shrunken(start), text_part(start)
    part = next((key for key in start.sub_configs if getattr(start, key, None) is text), None)
    if given is not None:
        values = own_structure(start, values)
    options = {name: True for name in OPTIONAL if getattr(text, name, None) is False and given is None}
    known = text.to_dict()
    for extra in ({**options}, {}) if options else ({},):
        for change in CHANGES if given is None else (*CHANGES, *_WITHOUT_ROPE):
            different = {name: value for name, value in change.items() if name in known}
            if change and not different:
                continue
            kept = {**(values[part] if part else values), **extra, **different}
            kept = {name: value for name, value in kept.items() if value is not DROPPED}
            yield TinyConfig(path, {**values, part: kept} if part else kept)


def own_structure(config: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of itself, with other sizes, and without sizes of what it has none of.

    Args:
        config: a model's configuration.
        sizes: what `shrunken` gives for it.
    """
    stated = config.to_dict()
    try:
        plain = type(config)().to_dict()
    except Exception:  # noqa: BLE001 - a class need not have usable defaults
        plain = {}
    found = {
        name: value
        for name, value in stated.items()
        if name not in _OF_THE_FILE and (name not in plain or plain[name] != value)
    }
    layers = int(getattr(config, "num_hidden_layers", 0) or 0)
    count = next((int(sizes[name]) for name in LAYERS if isinstance(sizes.get(name), int)), 0)
    for name, value in sizes.items():
        if isinstance(value, Mapping) and getattr(config, name, None) is not None:
            found[name] = own_structure(getattr(config, name), value)
        elif stated.get(name) not in (0, None):
            found[name] = value
    for name, value in found.items():
        if count and name not in sizes and _places(value, layers):
            found[name] = _fewer_places(value, count)
    return found


def _places(value: Any, layers: int) -> bool:
    """Return whether a value is a list of layers by their numbers."""
    return (
        isinstance(value, list)
        and 0 < len(value) < layers
        and all(type(item) is int and 0 <= item < layers for item in value)
        and len(set(value)) == len(value)
    )


def _fewer_places(value: list[int], count: int) -> list[int]:
    kept = [item for item in value if item < count][: count - 1]
    return kept or [count - 1]


def text_part(config: Any) -> Any:
    """Return the language model's part of a configuration: one of its sub-configurations, or itself."""
    found = config.get_text_config(
        decoder=True
    )  # of an encoder with a decoder this is a copy, which no one builds from
    return found if any(getattr(config, key, None) is found for key in config.sub_configs) else config


def default_config(config_class: type[Any]) -> Any:
    """Return a class's default configuration.

    Raises:
        UnsupportedModelError: it cannot be made.
    """
    try:
        return config_class()
    except Exception as error:
        raise UnsupportedModelError(
            f"{config_class.__name__}() fails: {type(error).__name__}: {error}",
            expected="a configuration class with usable defaults",
            hint="write the adapter by hand: core/docs/write-an-adapter.md",
        ) from error


def shrunken(config: Any) -> dict[str, Any]:
    """Return what to change in a configuration to make it tiny; parts of a multimodal one become dictionaries."""
    data = config.to_dict()
    text = text_part(config)
    name = next((key for key in config.sub_configs if getattr(config, key, None) is text), None)
    found = _sizes(config, data) if name is None else {name: shrunken(text)}
    for key in config.sub_configs:
        if key != name and getattr(config, key, None) is not None:
            part = getattr(config, key).to_dict()
            found[key] = {size: value for size, value in VISION.items() if type(part.get(size)) is int}
    return found if name is None else found | _tokens(data)


def _sizes(config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    aliases = {alias for alias, own in config.attribute_map.items() if own in data}
    known = {**SIZES, **SMALLER}
    found: dict[str, Any] = {
        name: value
        for name, value in known.items()
        if name in data
        and name not in aliases
        and (type(data[name]) is int or (data[name] is None and name in _MAY_BE_NONE))
    }
    old = int(getattr(config, "num_hidden_layers", 0) or 0)
    lists = {
        name: list(dict.fromkeys(map(_hashable, value)))
        for name, value in data.items()
        if isinstance(value, list) and old and len(value) == old and name not in found
    }
    patterns = [  # which repeat over the layers
        len(value)
        for name, value in data.items()
        if isinstance(value, list)
        and name not in (*lists, "architectures")
        and 1 < len(value) <= 4
        and all(type(v) is str for v in value)
    ]
    patterns = [length for length in patterns if old > length]
    count = max([2, *patterns, *map(len, lists.values())]) if all(len(kinds) <= 4 for kinds in lists.values()) else 4
    lists = {name: [known[name]] if type(kinds[0]) is int and name in known else kinds for name, kinds in lists.items()}
    found.update({name: count for name in LAYERS if name in found})
    found.update({name: [_plain(kinds[i % len(kinds)]) for i in range(count)] for name, kinds in lists.items()})
    for name in ("mrope_section",):
        rope = data.get("rope_parameters") or data.get("rope_scaling")
        if isinstance(rope, dict) and name in rope:
            found["rope_parameters"] = {**rope, name: [2, 1, 1]}
    if data.get("is_decoder") is False:  # of models that read in both directions otherwise, and keep no cache
        found["is_decoder"] = True
    return found | _tokens(data, found.get("vocab_size", 128))


def _tokens(data: Mapping[str, Any], vocabulary: int = 128) -> dict[str, Any]:
    ids = {}
    free = vocabulary - 1
    for name, value in data.items():
        if name.endswith(("_token_id", "_token_index")) and type(value) is int and value >= vocabulary:
            ids[name] = free
            free -= 1
    return ids


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_OF_THE_FILE: Final = (
    *("model_type", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path"),
    *("quantization_config", "block_configs", "anyblock_layers", "anyblock_layer_classes", "per_layer_config"),
)
"""What a stored configuration says of its file, or of a child's layers, and not of the architecture."""
_MAY_BE_NONE: Final = (
    *("head_dim", "num_key_value_heads", "n_inner", "intermediate_size", "sliding_window"),
    *("num_experts_per_tok", "n_routed_experts", "n_shared_experts"),
)
