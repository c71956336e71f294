"""Overrides in dotlist form: `pruning.ffn.sizes=[0.25,0.5]`, `+search.budget.params=0.8x`, `~data.evaluation`."""

from __future__ import annotations

import re
from typing import Any, Final

from anyblock.config.yaml_source import parse_yaml
from anyblock.contract.config_tree import KeyPath, Tree, dotted, split_key
from anyblock.errors import ConfigError, UsageError, nearest

_KEY: Final = r"[A-Za-z_][\w-]*(?:\.[\w-]+|\[\d+\])*"
_FORM: Final = re.compile(rf"(?:\+{{1,2}}|(?P<delete>~))?(?P<key>{_KEY})(?:=(?P<value>.*))?", re.DOTALL)


def apply_override(tree: Tree, override: str) -> None:
    """Change `tree` as one override says.

    `key=value` sets a value, which is read as YAML: a mapping is merged into the one that is there, anything else
    replaces it. `+key=value` and `++key=value` mean the same. `~key` deletes a key, so that its default applies.

    Raises:
        UsageError: the text has another form, or the key to delete is not there.
        ConfigError: the value is not YAML, or the key lies below something that has no keys.
    """
    match = _FORM.fullmatch(override)
    if match is None or (match["value"] is None) != bool(match["delete"]):
        raise UsageError(
            f"override {override!r}", expected="KEY=VALUE, for instance search.budget.params=0.8x, or ~KEY"
        )
    path = split_key(match["key"])
    origin = f"override {override!r}"
    if match["delete"]:
        _delete(tree, path, origin)
        return
    value, lines = parse_yaml(match["value"], origin)
    changed = Tree(_below(path, value), {path[:length]: origin for length in range(1, len(path) + 1)})
    changed.origins.update({path + below: origin for below in lines})
    if any(isinstance(part, int) for part in path):
        _set(tree, path, value, origin)
    else:
        _check_way(tree, path, origin)
        tree.merge(changed)
    tree.origins[path] = origin


def parse_setting(text: str) -> tuple[str, Any]:
    """Read `NAME=VALUE`, the value as YAML.

    Raises:
        UsageError: it has another form.
        ConfigError: the value is not YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"setting {text!r}", expected="NAME=VALUE")
    return name, parse_yaml(value, f"setting {text!r}")[0]


def _below(path: KeyPath, value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def _check_way(tree: Tree, path: KeyPath, origin: str) -> None:
    node: Any = tree.data
    for length, part in enumerate(path):
        if node is None:
            return
        if not isinstance(node, dict):
            raise ConfigError(
                f"{origin}: {dotted(path[:length])} is a {type(node).__name__}", expected="a mapping to set a key in"
            )
        if part not in node:
            return
        node = node[part]


def _set(tree: Tree, path: KeyPath, value: Any, origin: str) -> None:
    node: Any = tree.data
    for part in path[:-1]:
        node = _step(node, part, path, origin)
    _step(node, path[-1], path, origin)
    node[path[-1]] = value


def _step(node: Any, part: str | int, path: KeyPath, origin: str) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"{origin}: there is no {dotted(path)}", expected="a position in a list that is there"
        ) from error


def _delete(tree: Tree, path: KeyPath, origin: str) -> None:
    node: Any = tree.data
    for part in path[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or path[-1] not in node:
        known = map(str, node) if isinstance(node, dict) else ()
        raise UsageError(
            f"{origin}: {dotted(path)} is not set", expected="a key that is set", hint=nearest(str(path[-1]), known)
        )
    del node[path[-1]]
    for key in [key for key in tree.origins if key[: len(path)] == path]:
        del tree.origins[key]
