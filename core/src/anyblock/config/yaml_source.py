"""Reading YAML without trusting it: bounded in size, depth and expansion, no tags, no duplicate keys, lines kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anyblock.contract.config_tree import KeyPath, Tree, dotted
from anyblock.errors import ConfigError

MAX_BYTES: Final = 256 * 1024
"""Largest configuration file."""
MAX_DEPTH: Final = 32
"""Deepest nesting of mappings and lists."""
MAX_NODES: Final = 10_000
"""Most values in one file, counted after its aliases are expanded."""
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
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
        raise ConfigError(f"{path}: the top level is a {_kind(value)}", expected="a mapping, `key: value`")
    return Tree(value, {key: f"{path}:{line}" for key, line in lines.items()})


def parse_yaml(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    """Read YAML text as OmegaConf does (`1e-6` is a number), leaving interpolations as text.

    Args:
        text: one YAML document.
        name: the file, or another name for errors.

    Returns:
        The value, and `{key path: line}` counted from 1.

    Raises:
        ConfigError: as for `read_yaml`, apart from the top level's type.
    """
    try:
        _refuse_excess(text, name)
        root = yaml.compose(text, Loader=_LOADER)
        lines: dict[KeyPath, int] = {}
        if root is not None:
            _note_lines(root, (), lines, name)
        # A list around the document lets OmegaConf read a scalar too.
        loaded = OmegaConf.load(io.StringIO(text), max_yaml_expanded_nodes=MAX_NODES) if _is_container(root) else None
    except yaml.YAMLError as error:
        raise _not_yaml(error, name) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from error
    if loaded is not None:
        return OmegaConf.to_container(loaded, resolve=False), lines
    scalar = OmegaConf.from_dotlist([f"value={text}"])
    return OmegaConf.to_container(scalar, resolve=False)["value"], lines  # type: ignore[call-overload,index]


def _is_container(node: yaml.Node | None) -> bool:
    return isinstance(node, yaml.CollectionNode)


def _refuse_excess(text: str, name: str) -> None:
    """Look at the stream of events, which needs no recursion, before anything is built from it."""
    depth = count = 0
    for event in yaml.parse(text, Loader=_LOADER):
        where = f"{name}:{event.start_mark.line + 1}"
        count += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _too_deep(where)
        if count > MAX_NODES:
            raise ConfigError(f"{where}: more than {MAX_NODES} values", expected="a configuration, which is small")
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _TAGS:
            raise ConfigError(f"{where}: the tag {tag!r}", expected="plain values; a configuration builds no objects")


def _note_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    """Fill `lines` with every key path below `node`, following aliases; refuse duplicates and runaway expansion."""
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: an alias that contains itself", expected="finite values")
    if len(lines) > MAX_NODES:
        raise ConfigError(
            f"{name}:{node.start_mark.line + 1}: aliases expand to more than {MAX_NODES} values",
            expected="a configuration, which is small",
        )
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _note_lines(item, (*path, index), lines, name)
    elif isinstance(node, yaml.MappingNode):
        own: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    _note_lines(merged, path, lines, name)
                continue
            if key.tag != _TEXT:
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise ConfigError(
                    f"{name}:{line}: the key is {shown}, which is not a name", expected="a name, or quotes"
                )
            if key.value in own:
                raise ConfigError(
                    f"{name}:{line}: duplicate key {dotted((*path, key.value))!r}, first on line {own[key.value]}",
                    expected="every key once",
                )
            own[key.value] = line
        # Own keys come last, since they win over merged ones.
        for key, value in node.value:
            if key.tag != _MERGE:
                lines[(*path, key.value)] = own[key.value]
                _note_lines(value, (*path, key.value), lines, name)


def _not_yaml(error: yaml.YAMLError, name: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    if "maximum nesting depth" in problem:
        # libyaml reads ahead, and from PyYAML 6.0.4 on it has a limit of its own, which it may reach before we see an event.
        return _too_deep(f"{name}:{mark.line + 1}" if mark else name)
    return ConfigError(f"{where}: not YAML: {problem}", expected="one YAML document")


def _too_deep(where: str) -> ConfigError:
    return ConfigError(f"{where}: nested more than {MAX_DEPTH} deep", expected="a configuration, which is shallow")


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "single value"
