"""The configuration attribute behind each size, found by changing it and comparing shapes layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anyblock_new_family.introspection.model import shapes_model
from anyblock_new_family.introspection.tiny import LAYERS, text_part

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Effect:
    """What changing one attribute does.

    Attributes:
        attribute: its name.
        before, after: its value.
        changed: `{tensor: (shape, shape)}` by module name.
    """

    attribute: str
    before: int
    after: int
    changed: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def dims(self, name: str) -> list[int]:
        """Return the dimensions of a tensor that changed."""
        old, new = self.changed[name]
        return [dim for dim, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]


def shapes_of(config: Any) -> Shapes:
    """Return the shape of every stored tensor of a configuration's model."""
    return {name: tuple(tensor.shape) for name, tensor in shapes_model(config).state_dict().items()}


def effects(config: Any) -> list[Effect]:
    """Return the effect of each integer attribute of the text configuration that changes shapes inside layers only."""
    text, before, found = text_part(config), shapes_of(config), []
    for name, value in text.to_dict().items():
        if (type(value) is int and value > 0) or (
            value is None and name in ("n_inner", "intermediate_size", "head_dim")
        ):
            effect = _effect(config, name, value, before)
            if effect is not None:
                found.append(effect)
    return found


def ratio_without(config: Any, attribute: str, layer: str) -> int | None:
    """Return which multiple of the hidden size a width is where its attribute is None; None where that is refused."""
    own = copy.deepcopy(config)
    try:
        setattr(text_part(own), attribute, None)
        shapes = shapes_of(own)
    except Exception:  # noqa: BLE001 - most model classes refuse it
        return None
    before = shapes_of(config)
    hidden = int(text_part(config).hidden_size)
    sizes = [
        size for name, shape in shapes.items() if name.startswith(layer) and before.get(name) != shape for size in shape
    ]
    return max(sizes) // hidden if sizes and max(sizes) % hidden == 0 else None


def layer_count(config: Any, path: str, layers: int) -> str:
    """Return the attribute that says how many decoder layers there are, `num_hidden_layers` when that does."""
    for name in ("num_hidden_layers", *LAYERS):
        own = copy.deepcopy(config)
        if not hasattr(text_part(own), name):
            continue
        try:
            setattr(text_part(own), name, layers - 1)
            if len(shapes_model(own).get_submodule(path)) == layers - 1:
                return name
        except Exception:  # noqa: BLE001 - other attributes may have to change with it
            continue
    return "num_hidden_layers"


def _effect(config: Any, name: str, value: int | None, before: Shapes) -> Effect | None:
    if name.endswith("_id") or name in ("vocab_size", "num_hidden_layers", "hidden_size"):
        return None
    options = [value * 2, value // 2, value * 3, value + 4, value + 1] if value else [24]
    for other in options:
        if other < 1:
            continue
        own = copy.deepcopy(config)
        try:
            setattr(text_part(own), name, other)
            after = shapes_of(own)
        except Exception:  # noqa: BLE001 - a model class may refuse a size in any way
            continue
        if after.keys() != before.keys():
            return None
        changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
        if any(len(old) != len(new) for old, new in changed.values()):
            return None
        return Effect(name, value or 0, other, changed) if changed else None
    return None
