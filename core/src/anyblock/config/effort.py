"""`effort`: how much text, how many candidates, how much searching and how much training, in one word."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final, Literal

from anyblock.contract.config_tree import KeyPath, Tree

Effort = Literal["quick", "balanced", "thorough"]

EFFORTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "quick": {
        "data": {"calibration_tokens": 12_288, "scoring_tokens": 1_024, "evaluation_tokens": 8_192},
        "search": {"refine_rounds": 3},
    },
    "balanced": {},
    "thorough": {
        "data": {"calibration_tokens": 131_072, "scoring_tokens": 16_384},
        "pruning": {
            "ffn": {"sizes": [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]},
            "repair": {"target": "stream"},
        },
        "scoring": {"exact_sample": 32},
        "search": {"refine_rounds": 12},
        "distillation": {"model": {"enabled": True}},
    },
}
"""`{effort: the values that take the place of the defaults}`; what a file, an option or an override says wins over them."""


def with_effort(tree: Tree) -> Tree:
    """Lay a configuration over the values of its effort; one that names none, or none that there is, comes back unchanged."""
    effort = tree.data.get("effort")
    values = EFFORTS.get(effort) if isinstance(effort, str) else None
    if not values:
        return tree
    found = Tree(copy.deepcopy(dict(values)))
    found.origins = dict.fromkeys(paths_of(found.data), f"effort {effort}")
    found.merge(tree)
    return found


def paths_of(data: Mapping[str, Any], path: KeyPath = ()) -> list[KeyPath]:
    """Return the key path of every value and mapping, outer ones first."""
    own = [(*path, key) for key in data]
    return own + [
        below for key, value in data.items() if isinstance(value, Mapping) for below in paths_of(value, (*path, key))
    ]
