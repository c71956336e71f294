"""The attribute behind the number of experts that a router chooses."""

from __future__ import annotations

import copy
from typing import Final

import torch
from anyblock.modeling.skeleton import model_class

from anyblock_new_family.introspection.branches import trace_layer
from anyblock_new_family.introspection.layers import find_layers
from anyblock_new_family.introspection.model import TinyModel
from anyblock_new_family.introspection.tiny import text_part

_PARTS: Final = ("per_tok", "topk", "top_k")


def top_k_attribute(tiny: TinyModel, index: int, seen: tuple[int, int] | None) -> str | None:
    """Return the attribute that changes how many experts a layer's router chooses; None where none does.

    Args:
        tiny: the model.
        index: a layer with experts.
        seen: the last choice in its trace, `(of, k)`.
    """
    values = tiny.text.to_dict()
    if seen is None:  # a router that takes one maximum after the other (PhiMoE): only the attribute's name tells
        named = [name for name, value in values.items() if type(value) is int and any(part in name for part in _PARTS)]
        return str(named[0]) if len(named) == 1 else None
    named = [
        name for name, value in values.items() if type(value) is int and value == seen[1] and not name.endswith("_id")
    ]
    for name in sorted(named, key=lambda name: not any(part in name for part in _PARTS)):
        other = seen[1] - 1 if seen[1] > 1 else seen[1] + 1
        if _top_k(tiny, index, str(name), other) == other:
            return str(name)
    return None


@torch.no_grad()
def _top_k(tiny: TinyModel, index: int, name: str, value: int) -> int | None:
    config = copy.deepcopy(tiny.config)
    try:
        setattr(text_part(config), name, value)
        model = model_class(config)._from_config(config, dtype=torch.float32).eval()
        listed = find_layers(model, tiny.ids, int(text_part(config).num_hidden_layers))
        found = trace_layer(listed.runs[index]).top_k
    except Exception:  # noqa: BLE001 - a model class may refuse a value in any way
        return None
    return None if found is None else found[1]
