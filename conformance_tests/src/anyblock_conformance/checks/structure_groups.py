"""Structure: does every tensor of the checkpoint have its place?"""

from __future__ import annotations

import copy
import re
from typing import Any

from anyblock.checkpoint.config_view import config_view
from anyblock.contract.blocks import HALVES, group_name
from anyblock.costs.weights import is_tied

from anyblock_conformance.check import check
from anyblock_conformance.expect import NotApplicableError, equal, nothing
from anyblock_conformance.subject import Subject

_LAYER = re.compile(r"block_(\d+)_(attention|ffn|other)")
_OFFSET = 10
_COUNT = re.compile(r"(num_)?(hidden_|decoder_)?(layers|blocks)")
_PLAIN = {"F64", "F32", "F16", "BF16"}


@check("structure.group-names", needs="headers", depends_on=["structure.conformance-config"])
def check_group_names(subject: Subject) -> None:
    """Group names are `embeddings`, `lm_head`, `block_{i}_` with `attention`, `ffn` or `other`, or those of extra groups.

    Why: core finds a subblock's file by these names. A group with another name is kept but never pruned, costed or run
    layer by layer.

    How to fix: return exactly these names from `layer_name_predicates` for `num_layers` layers; the name of an extra
    group (`vision_encoding`) does not begin with `block_`.
    """
    faults = [f"there is no group {name!r}" for name in ("embeddings", "lm_head") if name not in subject.patterns]
    for group in subject.patterns:
        match = _LAYER.fullmatch(group)
        if match and int(match[1]) >= subject.num_layers:
            faults.append(f"{group!r}, but the model has layers 0 to {subject.num_layers - 1}")
        elif group.startswith("block_") and not match:
            faults.append(f"{group!r} is not a name of a layer's group")
    nothing(faults, "illegal groups")


@check("structure.tensor-groups", needs="headers", depends_on=["structure.conformance-config"])
def check_tensor_groups(subject: Subject) -> None:
    """Every tensor of the checkpoint belongs to exactly one group, and every half that is there has tensors.

    Why: a tensor in no group is lost in the conversion, one in two groups is counted and pruned twice.

    How to fix: a pattern has to match the whole name of each of its tensors, biases and buffers included, and no other;
    put what belongs to neither half into `block_{i}_other`.
    """
    groups = {name: subject.groups_of(name) for name in subject.names}
    faults = [f"no group takes {name}" for name, found in groups.items() if not found]
    faults += [f"{name} is in {' and '.join(found)}" for name, found in groups.items() if len(found) > 1]
    present = {group for found in groups.values() for group in found}
    for index, block in enumerate(subject.blocks):
        for half in HALVES:
            group, absent = group_name(index, half), block.half(half).no_op
            if absent and group in present:
                faults.append(f"{group} has tensors, but its block config says no_op")
            if not absent and group not in present:
                faults.append(f"{group} has no tensor, but its block config is not a no_op")
    nothing(faults, f"of {len(groups)} tensors")


@check("structure.many-layers", needs="headers", depends_on=["structure.tensor-groups"])
def check_many_layers(subject: Subject) -> None:
    """Patterns tell layer 1 from layers 10 to 19.

    Why: `layers.1.*` also matches `layers.10.mlp.up_proj.weight`. The tiny model does not show it, the first real one does.

    How to fix: put an escaped dot after the index: `rf"model\\.layers\\.{index}\\..+"`.
    """
    layers = subject.num_layers
    if layers > _OFFSET:
        raise NotApplicableError(f"this checkpoint has {layers} layers itself, see structure.tensor-groups")
    patterns = subject.family.layer_name_predicates(layers + _OFFSET, _deeper(subject))
    faults = []
    for name in subject.names:
        (group,) = subject.groups_of(name)
        expected = {name: group}
        if match := _LAYER.fullmatch(group):
            index = int(match[1])
            moved = re.sub(rf"(?<=\.){index}(?=\.)", str(index + _OFFSET), name, count=1)
            if moved != name:
                expected[moved] = group_name(index + _OFFSET, match[2])
        for each, wanted in expected.items():
            found = [candidate for candidate, pattern in patterns.items() if pattern.fullmatch(each)]
            if found != [wanted]:
                faults.append(f"{each} is in {' and '.join(found) or 'no group'}, expected {wanted}")
    nothing(faults, f"with {layers + _OFFSET} layers")


@check("structure.outer-groups", needs="headers", depends_on=["structure.tensor-groups", "structure.module-paths"])
def check_outer_groups(subject: Subject) -> None:
    """The input embedding is in `embeddings`; the final norm and, unless it is tied, the output head are in `lm_head`.

    Why: costs count a tied matrix once by these groups, and exporters write them as files of their own.

    How to fix: move the tensor to the group that the message names. A head that is tied need not be in the checkpoint; one
    that is not tied has to be.
    """
    family = subject.family
    tied = is_tied(subject.config, subject.text_config)
    wanted = {
        family.input_embedding_name(): ("embeddings", True),
        family.final_norm_name(): ("lm_head", False),
        family.output_embedding_name(): ("lm_head", not tied),
    }
    faults = []
    for path, (group, required) in wanted.items():
        if not path:
            continue  # a decoder without a final norm
        own = [name for name, module in subject.module_names.items() if module.startswith(f"{path}.")]
        if group == "embeddings":  # they may be stored under the name of a module that they are tied to
            own = own or [name for name, owners in subject.module_owners.items() if path in owners]
        if required and not own:
            faults.append(
                f"the checkpoint has no tensor of {path}, which is not tied"
                if group == "lm_head"
                else f"no tensor of {path}"
            )
        faults += [
            f"{name} is in {found}, expected {group}"
            for name in own
            for found in subject.groups_of(name)
            if found != group
        ]
    nothing(faults, "tensors outside the layers")


@check("structure.weight-names", needs="headers", depends_on=["structure.conformance-config"])
def check_weight_names(subject: Subject) -> None:
    """`convert_weight_name` keeps tensors apart, and leaves a name alone that it has given.

    Why: a subblock checkpoint can be converted again, and two tensors with one name cannot both be stored.

    How to fix: rename only the prefix that differs in files; the result of a renaming must not match the rule again.
    """
    family = subject.family
    renamed = {name: family.convert_weight_name(name) for name in subject.tensors}
    again = {new: family.convert_weight_name(new) for new in renamed.values()}
    faults = [f"{new} would become {other} in a second conversion" for new, other in again.items() if new != other]
    counted: dict[str, list[str]] = {}
    for name, new in renamed.items():
        counted.setdefault(new, []).append(name)
    faults += [f"{' and '.join(names)} would both be {new}" for new, names in counted.items() if len(names) > 1]
    nothing(faults, "names")


@check("structure.dtypes", needs="headers", depends_on=["structure.conformance-config"])
def check_dtypes(subject: Subject) -> None:
    """Weights are stored in the dtype that the text configuration names, and as plain floating-point numbers.

    Why: costs and the loader go by the configuration's dtype. A matrix in a quantized storage that `dequantize` does not
    name would be copied as it is, and no pruning can be applied to it.

    How to fix: name quantized tensors and their scales in `dequantize`, and compute them in `dequantize_tensor`; return
    the text configuration with its own dtype.
    """
    plain: dict[str, int] = {}
    faults = []
    for name, shape in subject.names.items():
        if shape.sizes is None or len(shape.sizes) < 2:
            continue
        if shape.dtype not in _PLAIN:
            faults.append(f"{name} is stored as {shape.dtype}, and dequantize does not compute it")
            continue
        count = 1
        for size in shape.sizes:
            count *= size
        plain[shape.dtype] = plain.get(shape.dtype, 0) + count
    nothing(faults, "matrices that are not plain floating-point numbers")
    dtype = getattr(subject.text_config, "dtype", None)
    if dtype is not None and plain:
        most = max(plain, key=lambda name: plain[name])
        names = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
        said = str(dtype).removeprefix("torch.")
        equal(names.get(said, said), most, f"the text configuration's dtype ({said}; tensors by dtype: {plain})")


def _deeper(subject: Subject) -> Any:
    """Return a view of the configuration with ten more layers; layer `i + 10` is of the same kind as layer `i`."""
    layers = subject.num_layers
    mapped = subject.text_config.attribute_map.get("num_hidden_layers")

    def extend(data: dict[str, Any]) -> dict[str, Any]:
        """Return a part of the configuration with every layer count and list of layers made longer."""
        found: dict[str, Any] = {}
        for key, value in data.items():
            if (key == mapped or _COUNT.fullmatch(key)) and value == layers:
                found[key] = layers + _OFFSET
            elif isinstance(value, dict):
                found[key] = extend(value)
            elif key.endswith(("_indices", "_idxs")) and _indices(value, layers):
                found[key] = [*value, *(index + _OFFSET for index in value)]
            elif _per_layer(key, value, layers):
                found[key] = value + value[-1:] * (_OFFSET - layers) + value
            else:
                found[key] = value
        return found

    return config_view(extend(copy.deepcopy(subject.raw_config)))


def _indices(value: Any, layers: int) -> bool:
    return isinstance(value, list) and all(type(item) is int and item < layers for item in value)


def _per_layer(key: str, value: Any, layers: int) -> bool:
    """Return whether an entry of the configuration seems to have one item a layer, such as `layer_types`."""
    if isinstance(value, str):
        return "pattern" in key and len(value) == layers
    return isinstance(value, list) and len(value) == layers and ("layer" in key or "block" in key)
