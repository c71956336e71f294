"""Checkpoints of the model type `nemotron_h_puzzle`: Nemotron-H whose layers differ in size, as NVIDIA publishes them.

A layer of `block_configs` is its `block_type` and whatever it has of its own by the names of Nemotron-H's configuration; the rest
is what the configuration as a whole says. The names of tensors are Nemotron-H's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.hookspecs import hookimpl
from anyblock.errors import ConfigError, UnsupportedModelError

MODEL_TYPE: Final = "nemotron_h_puzzle"
_TYPES: Final = ("mamba", "attention", "moe", "mlp")
_SIZES: Final = (
    *("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "moe_shared_expert_intermediate_size"),
    *("intermediate_size", "num_key_value_heads"),
    *("ssm_state_size", "mamba_num_heads", "mamba_head_dim", "n_groups"),
)
"""What block configs say of single layers; the configuration of the whole then says the largest."""
_OF_LAYERS: Final = (
    *("block_configs", "blockwise_members", "num_hidden_layers", "layers_block_type", "hybrid_override_pattern"),
    *("architectures", "auto_map", "model_type"),
)


class NemotronHPuzzle:
    """Reads the configuration of these checkpoints as that of a Nemotron-H child."""

    @hookimpl
    def standard_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `FamilySpec.standard_config`."""
        if config.get("model_type") != MODEL_TYPE:
            return None
        _register()
        return as_nemotron_h(config)


def as_nemotron_h(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of such a `config.json` as that of a Nemotron-H with AnyBlock's `block_configs`.

    Raises:
        ConfigError: a layer is not an object with a known `block_type`, or there is none.
        UnsupportedModelError: layers differ in what AnyBlock has once for a model, or slide a window over their attention.
    """
    blocks = config["block_configs"]
    if not isinstance(blocks, list) or not blocks:
        raise ConfigError(f"block_configs is {blocks!r}", expected="a list with one entry per layer")
    whole = {name: value for name, value in config.items() if name not in _OF_LAYERS}
    layers = list(_layers(whole, blocks))
    types = [block["block_type"] for block in blocks]
    # First of all: this also makes sure that sizes are numbers.
    ours = [_block(layer, index).to_dict() for index, layer in enumerate(layers)]
    for name in sorted({name for block in blocks for name, value in block.items() if value is not None}):
        if name == "block_type":
            continue
        having = {types[index] for index, block in enumerate(blocks) if block.get(name) is not None}
        values: list[Any] = [layer.get(name) for layer, kind in zip(layers, types, strict=True) if kind in having]
        if name not in _known():
            raise UnsupportedModelError(
                f"layer {[block.get(name) is not None for block in blocks].index(True)} of this {MODEL_TYPE} model has "
                f"{name}={next(value for value in values if value is not None)!r}",
                expected=f"layers with {', '.join(_SIZES)}",
                hint="Nemotron-H as transformers has it does not compute this",
            )
        if any(value != values[0] for value in values) and (name not in _SIZES or None in values):
            raise UnsupportedModelError(
                f"layers of this {MODEL_TYPE} model differ in {name}: {', '.join(dict.fromkeys(map(str, values)))}",
                expected=f"layers that differ in {', '.join(_SIZES)}, and say them all",
            )
        whole[name] = max(values) if name in _SIZES else values[0]
    if "attention" in types and (window := whole.get("sliding_window")):
        raise UnsupportedModelError(
            f"attentions of this {MODEL_TYPE} model have a sliding window of {window} tokens",
            expected="attentions over all tokens, which Nemotron-H has in transformers",
        )
    return {
        **whole,
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        "layers_block_type": types,
        "num_hidden_layers": len(types),
        "block_configs": ours,
    }


def _layers(whole: Mapping[str, Any], blocks: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield every layer's own configuration, as of a model of one layer."""
    for index, block in enumerate(blocks):
        kind = block.get("block_type") if isinstance(block, Mapping) else None
        if kind not in _TYPES:
            what = "block_type is " + repr(kind) if isinstance(block, Mapping) else type(block).__name__
            raise ConfigError(f"block_configs[{index}]: {what}", expected=f"a block_type of {', '.join(_TYPES)}")
        own = {name: value for name, value in block.items() if value is not None and name != "block_type"}
        yield {**whole, **own, "layers_block_type": [kind]}


def _block(layer: dict[str, Any], index: int) -> BlockConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import NemotronHConfig

    sizes = {name: layer[name] for name in ("layers_block_type", *_SIZES) if layer.get(name) is not None}
    (kind,) = layer["layers_block_type"]
    try:
        own = NemotronHConfig(**sizes)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"block_configs[{index}]: {error}", expected="sizes that are integers above 0") from error
    mixer: dict[str, Any] = {"no_op": kind in ("moe", "mlp")}
    ffn: dict[str, Any] = {"no_op": not mixer["no_op"]}
    if kind == "mamba":
        mixer["mamba"] = {
            "state_dim": own.ssm_state_size,
            "num_heads": own.mamba_num_heads,
            "head_dim": own.mamba_head_dim,
            "num_groups": own.n_groups,
        }
    elif kind == "attention":
        mixer["num_key_value_heads"] = own.num_key_value_heads
    elif kind == "moe":
        ffn["moe"] = {
            "num_local_experts": own.n_routed_experts,
            "num_experts_per_tok": own.num_experts_per_tok,
            "expert_intermediate_dim": own.moe_intermediate_size,
            "shared_expert_intermediate_dim": own.moe_shared_expert_intermediate_size,
        }
    else:
        ffn["intermediate_size"] = own.intermediate_size
    return BlockConfig.from_dict({"attention": mixer, "ffn": ffn}, where=f"block_configs[{index}]")


@cache
def _known() -> frozenset[str]:
    """Return the names of Nemotron-H's configuration."""
    from transformers import NemotronHConfig

    return frozenset(NemotronHConfig().to_dict()) - {"sliding_window"}


@cache
def _register() -> None:
    """Let `AutoConfig` read such folders, as the Nemotron-H that they are; their own code is then neither needed nor run."""
    from transformers import AutoConfig, NemotronHConfig

    class NemotronHPuzzleConfig(NemotronHConfig):  # type: ignore[misc]
        """Becomes a `NemotronHConfig` when it is read."""

        model_type = MODEL_TYPE

        @classmethod
        def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
            """Return the configuration of the Nemotron-H."""
            return NemotronHConfig.from_dict(as_nemotron_h(config_dict), **options)

    AutoConfig.register(MODEL_TYPE, NemotronHPuzzleConfig, exist_ok=True)
