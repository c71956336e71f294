"""A configuration before validation: plain values, and for every key the place where it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KeyPath = tuple[str | int, ...]
"""The way to a value: mapping keys and list positions."""


@dataclass
class Tree:
    """Plain values with their origins.

    Attributes:
        data: mappings, lists and scalars as YAML gives them; interpolations are still text.
        origins: `{key path: place}`, a place being `run.yaml:12` or `override 'seed=3'`.
    """

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> str:
        """Return where the key, or the nearest key above it, was written; `""` when no file gives it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return ""

    def place(self, path: KeyPath) -> str:
        """Return `run.yaml:12: pruning.ffn.sizes`: where a key was written, and the key."""
        origin = self.origin(path)
        return ": ".join(part for part in (origin, dotted(path)) if part)

    def merge(self, other: Tree) -> None:
        """Lay `other` over this tree: mappings are merged, anything else replaces what was there."""
        _merge(self.data, other.data)
        self.origins.update(other.origins)

    def nested(self, prefix: tuple[str, ...]) -> Tree:
        """Return the same values below the keys `prefix`."""
        data = self.data
        for key in reversed(prefix):
            data = {key: data}
        return Tree(data, {prefix + path: place for path, place in self.origins.items()})


def dotted(path: KeyPath) -> str:
    """Write a key path as a person does: `pruning.ffn.sizes[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def split_key(key: str) -> KeyPath:
    """Split `pruning.ffn.sizes[1]` into its parts."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", key))


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value
