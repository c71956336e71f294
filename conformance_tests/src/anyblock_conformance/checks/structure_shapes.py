"""Structure: do block configs and overrides describe the shapes of the tensors?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations

from anyblock.checkpoint.config_view import layer_view
from anyblock.checkpoint.groups import NOT_LOADED
from anyblock.contract.blocks import BlockConfig, group_name
from anyblock.costs.weights import is_tied

from anyblock_conformance.check import check
from anyblock_conformance.checks.structure_model import meta_model
from anyblock_conformance.expect import NotApplicableError, equal, nothing
from anyblock_conformance.kinds import claimed_kinds, resized, smaller_sizes, works_on
from anyblock_conformance.subject import Subject

Shapes = Mapping[str, tuple[int, ...]]


@check("structure.block-configs", needs="headers", depends_on=["structure.outer-groups", "structure.decoder-layers"])
def check_block_configs(subject: Subject) -> None:
    """Block configs agree with the shapes of the checkpoint's tensors, in every layer.

    Why: costs, legal sizes and the child's own `block_configs` are computed from them. A wrong size in one layer makes a
    child that cannot be loaded, or one that is larger than its budget.

    How to fix: read each size in `create_block_configs` from the attribute that the layer's constructor reads, also where
    it differs from layer to layer (`layer_types`, lists, a first dense layer).
    """
    for index, block in enumerate(subject.blocks):
        equal(
            BlockConfig.from_dict(block.to_dict()),
            block,
            f"the block config of layer {index}, written as JSON and read,",
        )
    built = subject.own_shapes
    if "block_configs" not in subject.raw_config:
        nothing(
            differences(built, subject.stock_shapes),
            "built from block configs and as transformers builds it, shapes differ",
        )
    faults = []
    for name, shape in subject.names.items():
        module = subject.module_names[name]
        if NOT_LOADED.issuperset(subject.groups_of(name)):
            continue
        if module not in built:
            faults.append(f"{name}: the model has no tensor {module}")
        elif shape.sizes is not None and not (
            _part_of(shape.sizes, built[module]) or _together(subject, module) == built[module]
        ):
            faults.append(f"{name} has shape {list(shape.sizes)}, and its block config gives {list(built[module])}")
    there = set(subject.module_names.values())
    if is_tied(subject.config, subject.text_config):
        there.add(f"{subject.family.output_embedding_name()}.weight")
    state = meta_model(subject).state_dict(keep_vars=True)
    stored = {id(state[name]) for name in there if name in state}
    there.update(name for name, tensor in state.items() if id(tensor) in stored)  # a head's bias may be tied as well
    faults += [
        f"the checkpoint has no tensor for {module}, {list(built[module])}" for module in built if module not in there
    ]
    nothing(faults, "the checkpoint's tensors and the block configs differ")


@check("structure.overrides", needs="headers", depends_on=["structure.block-configs"])
def check_overrides(subject: Subject) -> None:
    """A changed size in one layer's block config changes that half of that layer in proportion, and nothing else.

    Why: an override that has no effect, or that reaches another half or layer, gives children whose weights do not fit,
    or that silently compute something else.

    How to fix: give in `block_config_to_layer_overrides` the attribute that the layer's constructor reads, by its own
    name and not by an alias, and only attributes of the halves that are there.
    """
    tried = 0
    half_of = {module: group for name, module in subject.module_names.items() for group in subject.groups_of(name)}
    faults: list[str] = []
    for kind in claimed_kinds(subject):
        for layer in works_on(subject, kind):
            for size in smaller_sizes(subject, kind, layer)[-1:]:
                tried += 1
                block = resized(subject, kind, layer, size)
                built = subject.shapes([*subject.blocks[:layer], block, *subject.blocks[layer + 1 :]])
                group = group_name(layer, subject.mixins[kind].half)
                own = subject.mixins[kind].size(subject.blocks[layer])
                where = f"layer {layer} with {kind} {size} of {own}"
                faults += [f"{where}: {fault}" for fault in _faults(built, subject, group, half_of, own - size)]
    if not tried:
        raise NotApplicableError("the adapter declares no pruning kind that makes a half smaller")
    nothing(faults, f"in {tried} changed layers")
    _check_names(subject)


def _together(subject: Subject, module: str) -> tuple[int, ...]:
    """Return the shape of the stored tensors of one parameter one after the other, as when uneven parts of it are stored."""
    own = [subject.names[name].sizes or () for name, whole in subject.module_names.items() if whole == module]
    return (sum(sizes[0] for sizes in own if sizes), *(own[0][1:] if len({sizes[1:] for sizes in own}) == 1 else ()))


def _faults(built: Shapes, subject: Subject, group: str, half_of: Mapping[str, str], removed: int) -> Iterator[str]:
    before = subject.own_shapes
    changed = [name for name in before if built.get(name) != before[name]]
    yield from (f"{name} appeared" for name in built.keys() - before.keys())
    if not any(half_of.get(name) == group for name in changed):
        yield f"no tensor of {group} changed"
    for name in changed:
        sizes = built.get(name)
        if half_of.get(name) != group:
            yield f"{name} of {half_of.get(name)} changed from {list(before[name])} to {sizes and list(sizes)}"
        elif sizes is not None and any((old - new) % removed for old, new in zip(before[name], sizes, strict=True)):
            yield f"{name} changed from {list(before[name])} to {list(sizes)}, which is not a multiple of {removed} fewer"


def _check_names(subject: Subject) -> None:
    config = layer_view(subject.text_config, 0)
    aliases = getattr(config, "attribute_map", {})
    names = {name for block in subject.blocks for name in subject.family.block_config_to_layer_overrides(block)}
    faults = [f"{name!r} is an alias of {aliases[name]!r}" for name in sorted(names) if name in aliases]
    faults += [
        f"{name!r} is not an attribute of the configuration" for name in sorted(names) if not hasattr(config, name)
    ]
    nothing(faults, "overrides")


def differences(found: Shapes, expected: Shapes) -> list[str]:
    """Return where two sets of shapes differ, in words."""
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is too much" for name in found if name not in expected]
    faults += [
        f"{name} is {list(found[name])}, expected {list(expected[name])}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    return faults


def _part_of(stored: tuple[int, ...], built: tuple[int, ...]) -> bool:
    """Return whether a stored tensor is the built one, or one of the parts that transformers makes it of."""
    if stored == built:
        return True
    # Experts stored one by one become one tensor with a further dimension; gate and up, or query, key and value, may be
    # stored apart; either may be stored the other way round.
    if len(stored) + 1 == len(built):
        built = built[1:]
    return len(stored) == len(built) and any(
        all(size and whole % size == 0 for size, whole in zip(order, built, strict=True))
        for order in permutations(stored)
    )
