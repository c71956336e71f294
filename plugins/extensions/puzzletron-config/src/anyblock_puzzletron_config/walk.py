"""Walking through a configuration whose keys are the guide's, and changing one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anyblock.contract.config_tree import KeyPath, Tree, dotted
from anyblock.contract.settings import Section

from anyblock_puzzletron_config.keys import GUIDE_KEYS
from anyblock_puzzletron_config.tables import PRUNING_ONLY


def leaves(data: dict[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield every key path that is a key of the guide, with its name, and every other one with `""`."""
    for part, value in data.items():
        here = (*path, part)
        name = dotted(here)
        has_parts = any(key.startswith(f"{name}.") for key in GUIDE_KEYS)
        if has_parts and isinstance(value, dict):
            yield from leaves(value, here)
        elif name in GUIDE_KEYS:
            yield here, name
        elif dotted(path) in GUIDE_KEYS:
            yield here, dotted(path)
        elif not (has_parts and value is None):
            yield here, ""


def texts(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield every text below `value` with its key path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(inner, (*path, part))


def below_pruning(tree: Tree, schema: type[Section]) -> Tree:
    """Put the keys of a file that is a `pruning` section by itself below `pruning`; return any other tree as it is."""
    if not PRUNING_ONLY & tree.data.keys():
        return tree
    outside = {*schema.model_fields, *(key.partition(".")[0] for key in GUIDE_KEYS)}
    # The reference's `pruning_defaults` says `descriptor: ${descriptor}`, which refers to the key outside.
    moved = {key for key, value in tree.data.items() if key not in outside or value == f"${{{key}}}"}
    parts = [Tree(), Tree()]
    for key, value in tree.data.items():
        parts[key in moved].data[key] = value
    for path, place in tree.origins.items():
        parts[path[0] in moved].origins[path] = place
    result, inner = parts
    result.merge(inner.nested(("pruning",)))
    return result


def lookup(data: Any, path: KeyPath) -> tuple[bool, Any]:
    """Return whether there is something at `path`, and what."""
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False, None
        data = data[part]
    return True, data


def assign(data: dict[Any, Any], path: KeyPath, value: Any) -> None:
    """Set the value at `path`, making mappings on the way."""
    for part in path[:-1]:
        inner = data.get(part)
        if not isinstance(inner, dict):
            inner = data[part] = {}
        data = inner
    data[path[-1]] = value
