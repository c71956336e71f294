"""Reading YAML without trusting it: bounded in size, depth and expansion, no tags, no duplicate keys, lines kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml  # type: ignore[import-untyped]

from anyblock.contract.config_tree import KeyPath, Tree, dotted
from anyblock.errors import ConfigError

MAX_BYTES: Final = 256 * 1024
"""Largest configuration file."""
MAX_DEPTH: Final = 32
"""Deepest nesting of mappings and lists."""
MAX_NODES: Final = 10_000
"""Most values in one file, counted after its aliases are expanded."""
_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))
_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> Tree:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: the file is missing, too large, no YAML, no mapping, nested too deep, expands to too much, names a
            key twice or uses a tag.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file", expected="a YAML file that describes a run")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES // 1024} KiB", expected="a configuration, which is small")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8", expected="a YAML file in UTF-8") from error
    value, lines = parse_yaml(text, str(path))
    if value is None:
        return Tree()
    if not isinstance(value, dict):
        kind = "list" if isinstance(value, list) else "single value"
        raise ConfigError(f"{path}: the top level is a {kind}", expected="a mapping, `key: value`")
    return Tree(value, {key: f"{path}:{line}" for key, line in lines.items()})


def parse_yaml(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    """Read YAML text; `1e-6` is a number, and interpolations are text.

    Args:
        text: one YAML document.
        name: the file, or another name for errors.

    Returns:
        The value, and `{key path: line}` counted from 1.

    Raises:
        ConfigError: as for `read_yaml`, apart from the top level's type.
    """
    lines: dict[KeyPath, int] = {}
    try:
        reader = _Reader(text, name)
        root = reader.get_single_node()
        return None if root is None else reader.value_of(root, (), lines), lines
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        raise ConfigError(f"{where}: not YAML: {problem}", expected="one YAML document") from error


class _Reader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads `1e-6` as a number and dates as text, and refuses what no configuration has while it reads."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [(tag, form) for tag, form in known if tag in (*_TAGS, _MERGE)]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._name = name
        self._depth = self._count = self._expanded = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        """See `yaml.composer.Composer.compose_node`: bounded, and without tags that build objects."""
        event = self.peek_event()
        self._count += 1
        if self._count > MAX_NODES:
            raise self._fault(event, f"more than {MAX_NODES} values", "a configuration, which is small")
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _TAGS:
            raise self._fault(event, f"the tag {tag!r}", "plain values; a configuration builds no objects")
        self._depth += 1
        if self._depth > MAX_DEPTH + 1:
            raise self._fault(event, f"nested more than {MAX_DEPTH} deep", "a configuration, which is shallow")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def value_of(self, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
        """Return a node's value, and fill `lines` with every key path below it; follows aliases, refuses duplicates."""
        self._expanded += 1
        if len(path) > MAX_DEPTH:
            raise self._fault(node, "an alias that contains itself", "finite values")
        if self._expanded > MAX_NODES:
            raise self._fault(
                node, f"aliases expand to more than {MAX_NODES} values", "a configuration, which is small"
            )
        if isinstance(node, yaml.SequenceNode):
            lines.update({(*path, index): item.start_mark.line + 1 for index, item in enumerate(node.value)})
            return [self.value_of(item, (*path, index), lines) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self.construct_object(node)
        found: dict[str, Any] = {}
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                # Of several mappings the first counts most.
                for other in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(other, yaml.MappingNode):
                        raise self._fault(key, f"<< merges a {other.id}", "a mapping, or a list of mappings")
                    found.update(self.value_of(other, path, lines))
            elif key.tag != _TEXT:
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise self._fault(key, f"the key is {shown}, which is not a name", "a name, or quotes")
            elif key.value in own:
                first = own[key.value][0].start_mark.line + 1
                what = f"duplicate key {dotted((*path, key.value))!r}, first on line {first}"
                raise self._fault(key, what, "every key once")
            else:
                own[key.value] = key, value
        for name, (key, value) in own.items():  # after merged ones, over which they win
            lines[(*path, name)] = key.start_mark.line + 1
            found[name] = self.value_of(value, (*path, name), lines)
        return found

    def _fault(self, place: Any, what: str, expected: str) -> ConfigError:
        return ConfigError(f"{self._name}:{place.start_mark.line + 1}: {what}", expected=expected)


class _Writer(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes text that the reader would take for something else."""

    yaml_implicit_resolvers = _Reader.yaml_implicit_resolvers


def write_yaml(data: Any) -> bytes:
    """Return plain values as YAML that `read_yaml` reads back as they are, keys in the given order."""
    options = {"Dumper": _Writer, "sort_keys": False, "default_flow_style": False}
    text: str = yaml.dump(data, allow_unicode=True, **options)
    # PyYAML folds text at U+0085, and reads that back as a space.
    return (yaml.dump(data, **options) if "\x85" in text else text).encode()


_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
