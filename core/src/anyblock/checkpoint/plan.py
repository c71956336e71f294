"""What a conversion will write: decided and checked completely before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anyblock.checkpoint.classify import classify
from anyblock.checkpoint.groups import check_groups
from anyblock.checkpoint.index import some
from anyblock.checkpoint.parse import shown
from anyblock.checkpoint.safetensors_writer import Stored
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.contract.blocks import BlockConfig, block_configs_from_json
from anyblock.errors import CheckpointError, ConfigError, PluginError

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

_DTYPE_KEYS: Final = ("torch_dtype", "dtype")
_DTYPES: Final = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class ConversionPlan:
    """What goes where.

    Attributes:
        config: the content of the new `config.json` without `block_configs`; it states the weights' type.
        block_configs: one a layer.
        groups: `{group: [tensor, ...]}` by new names.
        stored: `{new name: source}` for tensors that are copied.
        computed: `{new name: (source tensor, ...)}` for tensors that are computed.
    """

    config: Mapping[str, Any]
    block_configs: Sequence[BlockConfig]
    groups: Mapping[str, Sequence[str]]
    stored: Mapping[str, Stored]
    computed: Mapping[str, tuple[str, ...]]


def plan_conversion(
    family: ModelFamily, source: SourceCheckpoint, config: Mapping[str, Any], view: Any
) -> ConversionPlan:
    """Decide where every tensor goes.

    Args:
        family: the model's family.
        source: its weights.
        config: its `config.json`; if that has `block_configs` (a child is converted again), they are kept.
        view: the attribute view of that config, which the family's hooks see.

    Raises:
        CheckpointError: a tensor without a group or with several, two tensors with one new name, or a half without
            tensors.
        ConfigError: no usable number of layers, a size that is none, or another number of block configs than layers.
        PluginError: the family names tensors that the checkpoint does not have.
    """
    layers = _num_layers(family, view)
    if "block_configs" in config:
        blocks = block_configs_from_json(config["block_configs"])
    elif layers > len(source.tensors):
        raise ConfigError(f"num_hidden_layers is {layers:,}, and the checkpoint has {len(source.tensors):,} tensors")
    else:
        # Hooks hand on what config.json says; read back, every size is checked.
        blocks = block_configs_from_json([block.to_dict() for block in family.create_block_configs(view)])
    if len(blocks) != layers:
        raise ConfigError(
            f"there are {len(blocks)} block configs", expected=f"one for each of the {layers} hidden layers"
        )
    computed = _computed(family, source, view)
    consumed = {name for sources in computed.values() for name in sources}
    stored = _stored(family, source, consumed, computed)
    names = [*stored, *computed]
    groups = classify(names, family.layer_name_predicates(layers, view), family=family.model_type)
    check_groups(groups, blocks, str(source.path))
    kept = {
        key: value
        for key, value in config.items()
        if key != "block_configs" and not (computed and key == "quantization_config")
    }
    if not any(config.get(key) for key in _DTYPE_KEYS):
        # Without one a model is built in float32; transformers looks at the weights then.
        found = _dtype_of(stored, groups["embeddings"])
        kept |= {_DTYPE_KEYS[0]: found[0]} if found else {}
    return ConversionPlan(kept, blocks, groups, stored, computed)


def _dtype_of(stored: Mapping[str, Stored], names: Sequence[str]) -> list[str]:
    """Return the name of the tensors' type in a configuration; none when they are not stored in a type for computing."""
    found = [_DTYPES[stored[name].dtype] for name in names if name in stored and stored[name].dtype in _DTYPES]
    return found[:1]


def _num_layers(family: ModelFamily, view: Any) -> int:
    layers = getattr(family.language_model_config(view), "num_hidden_layers", None)
    if type(layers) is not int or layers < 1:
        raise ConfigError(f"num_hidden_layers is {shown(layers)}", expected="the number of decoder layers")
    return layers


def _computed(family: ModelFamily, source: SourceCheckpoint, view: Any) -> dict[str, tuple[str, ...]]:
    computed = {name: tuple(names) for name, names in (family.dequantize(list(source.tensors), view) or {}).items()}
    if absent := sorted({name for names in computed.values() for name in names} - source.tensors.keys()):
        raise PluginError(
            f"the {family.model_type} family's dequantize asks for {some(absent)}", expected="tensors of the checkpoint"
        )
    return computed


def _stored(
    family: ModelFamily, source: SourceCheckpoint, consumed: set[str], computed: Mapping[str, tuple[str, ...]]
) -> dict[str, Stored]:
    stored: dict[str, Stored] = {}
    origin: dict[str, str] = {}
    for name, (file, entry) in source.tensors.items():
        if name in consumed:
            continue
        new = family.convert_weight_name(name) or name
        if new in origin or new in computed:
            other = origin.get(new, "a computed tensor")
            raise CheckpointError(
                f"{shown(name)} and {shown(other)} would both be stored as {shown(new)}",
                expected="names that stay apart",
            )
        origin[new] = name
        stored[new] = Stored(file, entry)
    return stored
