"""What a conversion will write: decided and checked completely before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anyblock.checkpoint.classify import classify
from anyblock.checkpoint.config_view import config_view, without_layers
from anyblock.checkpoint.groups import NOT_LOADED, check_groups
from anyblock.checkpoint.index import some
from anyblock.checkpoint.json_io import shown
from anyblock.checkpoint.safetensors_writer import Stored
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.contract.blocks import BlockConfig, block_configs_from_json
from anyblock.errors import CheckpointError, ConfigError, PluginError

if TYPE_CHECKING:
    import torch

    from anyblock.family import ModelFamily

Compute = Callable[[str, Mapping[str, "torch.Tensor"]], "torch.Tensor"]
"""`(new name, {source tensor's name: source tensor}) -> tensor`."""
_DTYPE_KEYS: Final = ("torch_dtype", "dtype")
_DTYPES: Final = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_TIE: Final = "tie_word_embeddings"
_QUANTISATION: Final = "quantization_config"


@dataclass(frozen=True)
class ConversionPlan:
    """What goes where.

    Attributes:
        config: the content of the new `config.json` without `block_configs`; it states the weights' type, and whether the
            head is the embedding.
        view: the attribute view of that config, which the family's hooks see.
        block_configs: one a layer.
        groups: `{group: [tensor, ...]}` by new names.
        stored: `{new name: source}` for tensors that are copied.
        computed: `{new name: (source tensor, ...)}` for tensors that are computed.
        compute: computes one of these, also on the meta device.
        shapes: `{group: {new name: tensor on the meta device}}`.
        notes: what a user should hear of the model, a sentence each.
    """

    config: Mapping[str, Any]
    view: Any
    block_configs: Sequence[BlockConfig]
    groups: Mapping[str, Sequence[str]]
    stored: Mapping[str, Stored]
    computed: Mapping[str, tuple[str, ...]]
    compute: Compute
    shapes: Mapping[str, Mapping[str, torch.Tensor]]
    notes: Sequence[str] = ()


def plan_conversion(family: ModelFamily, source: SourceCheckpoint, config: Mapping[str, Any]) -> ConversionPlan:
    """Decide where every tensor goes, and hold the checkpoint to its model.

    Args:
        family: the model's family.
        source: its weights.
        config: its `config.json`; if that has `block_configs` (a child is converted again), they are kept,
            but for sizes that the tensors contradict.

    Raises:
        CheckpointError: a tensor that the model needs is missing, of another shape, left over or quantised; a tensor without
            a group or with several, two tensors with one new name, or a half without tensors.
        ConfigError: no usable number of layers, a size that is none, or another number of block configs than layers.
        PluginError: the family names tensors that the checkpoint does not have.
    """
    from anyblock.checkpoint.quantised import quantisation, quantised
    from anyblock.modeling.agree import said
    from anyblock.modeling.complete import complete_skeleton, differing_heads
    from anyblock.modeling.respelling import Respelling
    from anyblock.modeling.skeleton import build_skeleton, load_hf_config

    where = str(source.path)
    view = config_view(config, folder=source.path)
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
    origins = _origins(family, [name for name in source.tensors if name not in consumed], computed)
    hf_config = load_hf_config(source.path)
    notes = []
    if computed and hasattr(hf_config, _QUANTISATION):
        notes.append(
            f"{where} holds quantised weights ({quantisation(view)}), which are made plain; the result is not quantised"
        )
        del hf_config.quantization_config
    # The stock model is what an ordinary checkpoint has to fill; a child's layers are built by the family.
    builder = family if "block_configs" in config else None
    model = build_skeleton(builder, hf_config, blocks)
    patterns = family.layer_name_predicates(layers, view)
    metas = {name: entry.meta() for name, (_, entry) in source.tensors.items()}
    respelt = Respelling(model, {name: metas[origin] for name, origin in origins.items()}, patterns.values())
    computed |= {new: (origins[old],) for new, old in respelt.parts.items()}
    stored = {new: Stored(*source.tensors[origins[old]]) for new, old in respelt.names.items()}
    names = [*stored, *computed]
    try:
        groups = classify(names, patterns, family=family.model_type)
        check_groups(groups, blocks, where)
    except CheckpointError as error:
        if not computed and (method := quantisation(view, source.tensors, where)) is not None:
            raise quantised(where, method, error.what) from error
        raise

    def compute(name: str, sources: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `ConversionPlan.compute`."""
        if name in respelt.parts:
            return respelt.compute(name, *sources.values())
        return family.dequantize_tensor(name, sources, view)

    like: dict[object, torch.Tensor] = {}

    def shape(name: str) -> torch.Tensor:
        """Return a tensor on the meta device with the shape and dtype that the conversion will give."""
        if name in stored:
            return stored[name].entry.meta()
        sources = {origin: metas[origin] for origin in computed[name]}
        # Names that differ in numbers alone are those of other layers or experts, and there are tens of thousands of them.
        key = re.sub(r"\d+", "", name), *((tensor.dtype, tensor.shape) for tensor in sources.values())
        if key not in like:
            # The shape that packed numbers have is stored next to them.
            stated = [origin for origin in sources if origin.endswith(".weight_shape")]
            like[key] = compute(name, sources | source.load(stated))
        return like[key].clone()

    shapes = {group: {name: shape(name) for name in members} for group, members in groups.items()}
    kept = {key: value for key, value in without_layers(config).items() if key != _QUANTISATION}
    if differing_heads(model, stored):
        # As transformers decides. It is written down, so that whatever reads the config from now on agrees.
        kept = _untied(kept)
        view = config_view(_untied(view.to_dict()), folder=source.path)
        for part in (hf_config, hf_config.get_text_config(decoder=True)):
            part.tie_word_embeddings = False
        notes.append(
            f"{where}: config.json ties the head to the embedding, and the files hold different tensors for them; "
            "both are kept, as transformers keeps them, and the config says so from here on"
        )
    loaded = {name: tensor for group in shapes if group not in NOT_LOADED for name, tensor in shapes[group].items()}
    stated = blocks
    _, blocks = complete_skeleton(builder, hf_config, stated, loaded, where)
    notes += said(stated, blocks, where)
    if not any(config.get(key) for key in _DTYPE_KEYS):
        # Without one a model is built in float32; transformers looks at the weights then.
        found = _dtype_of(stored, groups["embeddings"])
        kept |= {_DTYPE_KEYS[0]: found[0]} if found else {}
    return ConversionPlan(kept, view, blocks, groups, stored, computed, compute, shapes, notes)


def _untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a `config.json` in which neither the model nor a part of it ties its head."""
    parts = {key: _untied(value) for key, value in config.items() if isinstance(value, dict) and value.get(_TIE)}
    return {**config, **parts, _TIE: False}


def _dtype_of(stored: Mapping[str, Stored], names: Sequence[str]) -> list[str]:
    """Return the name of the tensors' type in a configuration; none when they are not stored in a type for computing."""
    found = [stored[name].entry.dtype for name in names if name in stored]
    return [_DTYPES[dtype] for dtype in found if dtype in _DTYPES][:1]


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


def _origins(family: ModelFamily, names: Sequence[str], computed: Mapping[str, object]) -> dict[str, str]:
    """Return `{new name: source tensor}` of the tensors that are not computed."""
    origins: dict[str, str] = {}
    for name in names:
        new = family.convert_weight_name(name) or name
        if new in origins or new in computed:
            other = origins.get(new, "a computed tensor")
            raise CheckpointError(
                f"{shown(name)} and {shown(other)} would both be stored as {shown(new)}",
                expected="names that stay apart",
            )
        origins[new] = name
    return origins
