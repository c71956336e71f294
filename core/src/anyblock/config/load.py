"""`load_config`: from a YAML file and overrides to a validated `RunConfig`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from anyblock.config.budget import merge_entries
from anyblock.config.dialects import GUIDE, Tools
from anyblock.config.effort import paths_of, with_effort
from anyblock.config.extension_sections import sections_of, with_sections
from anyblock.config.overrides import apply_override
from anyblock.config.problems import configuration_error, section_class
from anyblock.config.registry import NameRegistry
from anyblock.config.schema import RunConfig
from anyblock.contract.config_tree import KeyPath, Tree
from anyblock.errors import ConfigError, UsageError
from anyblock.extensions import installed_extensions
from anyblock.progress import SILENT, Progress

OPTION: Final = "option"
"""The place of a value that the caller gave, as errors show it."""
_NAMED: Final = (
    ("evaluation", "also", "evaluations"),
    ("report", "sections", "sections"),
    ("execution", "engine", "executors"),
    ("scoring", "metric", "metrics"),
    ("pruning", "sizes_for", "formats"),
)
"""`(section, key, kind of thing)` of everything that a configuration names."""


def load_config(
    path: str | Path | None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
    *,
    registry: NameRegistry | None = None,
    progress: Progress = SILENT,
) -> RunConfig:
    """Read the configuration of one run.

    Args:
        path: a YAML file, AnyBlock's own or of an installed dialect; None when `base` and `overrides` say everything.
        overrides: `KEY=VALUE` or `~KEY`, applied in order on top of everything else.
        base: what the caller has settled, such as command-line options: `{"model": ..., "output": ...}`; it wins over
            the file.
        registry: where class names are looked up; None means core, the model's family and the installed extensions,
            imported only when the file names a class.
        progress: receives what was accepted without having an effect.

    Returns:
        The validated configuration, with every default filled in.

    Raises:
        ConfigError: the file cannot be used; one message lists every wrong key with its line.
        UsageError: an override has another form.
    """
    tools = Tools(registry, progress)
    tree = Tree() if path is None else tools.read(Path(path))
    _name_budgets(tree)
    given = Tree(_plain(base or {}))
    given.origins = dict.fromkeys(paths_of(given.data), OPTION)
    _name_budgets(given)
    tree.merge(given)
    for override in overrides:
        apply_override(tree, override)
        _name_budgets(tree)

    tools.tree = tree
    names = tools.names
    for dialect in [dialect for dialect in tools.dialects if dialect.matches(tree, tools)]:
        tree = tools.tree = dialect.translate(tree, tools)
    _require_values(tree, tree.data, ())
    tree = tools.tree = with_effort(tree)
    _shorten_hooks(tree, names)
    schema = RunConfig
    if _unknown_keys(tree.data, RunConfig):
        # Only then: the settings of extensions are known when their code is imported.
        schema = with_sections(RunConfig, sections_of(names().source or installed_extensions()))
    try:
        config = schema.model_validate(tree.data)
    except ValidationError as error:
        raise configuration_error(error, tree, schema) from error
    for place, kind, name in named_things(config):
        try:
            (names().source or installed_extensions()).one(kind, name)
        except UsageError as error:
            what = f"{tree.place(place)}: {error.what}"
            raise ConfigError(what, expected=error.expected, hint=error.hint) from error
    return config


def named_things(config: RunConfig) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield the place, the kind and the name of everything that a configuration names, defaults left out."""
    for section, key, kind in _NAMED:
        own = getattr(config, section)
        value = getattr(own, key)
        if isinstance(value, tuple):
            yield from (((section, key, index), kind, name) for index, name in enumerate(value))
        elif value != type(own).model_fields[key].default:
            yield (section, key), kind, value


def _require_values(tree: Tree, value: Any, path: KeyPath) -> None:
    """Refuse a value that stands for another one: `${key}`, or `???`."""
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            _require_values(tree, below, (*path, key))
    elif value == "???":
        raise ConfigError(f"{tree.place(path)} is ???", expected="a value in place of ???")
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(
            f"{tree.place(path)} is {value!r}, and interpolation comes with the distribution {GUIDE}",
            expected="the value itself, or that distribution",
            hint=f"python -m pip install {GUIDE}",
        )


def _unknown_keys(data: Mapping[str, Any], schema: type[Any]) -> bool:
    """Return whether the file has keys, at any depth, that a schema lacks."""
    for key, value in data.items():
        field = schema.model_fields.get(key)
        if field is None:
            return True
        below = section_class(field.annotation)
        if isinstance(value, Mapping) and below is not None and _unknown_keys(value, below):
            return True
    return False


def _name_budgets(tree: Tree) -> None:
    """Turn a list of budgets into a mapping, so that a later layer can replace one of them."""
    search = tree.data.get("search")
    entries = search.get("budget") if isinstance(search, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        return
    prefix: KeyPath = ("search", "budget")
    places = [(entry, tree.origin((*prefix, index))) for index, entry in enumerate(entries)]
    merged = merge_entries(places)
    assert isinstance(search, dict)
    search["budget"] = {cost: value for cost, (value, _) in merged.items()}
    tree.origins.update({(*prefix, cost): place for cost, (_, place) in merged.items()})


def _shorten_hooks(tree: Tree, names: Callable[[], NameRegistry]) -> None:
    """Replace the dotted path of a hook by its registered name."""
    pruning = tree.data.get("pruning")
    places = [(("pruning", key), value) for key, value in (pruning if isinstance(pruning, dict) else {}).items()]
    for path, section in places:
        if not isinstance(section, dict):
            continue
        for holder, key, below in _hook_names(section):
            if isinstance(holder[key], str) and "." in holder[key]:
                try:
                    holder[key] = names().hook(holder[key])
                except ConfigError as error:
                    raise ConfigError(
                        f"{tree.place((*path, *below))}: {error.what}", expected=error.expected, hint=error.hint
                    ) from error


def _hook_names(section: dict[str, Any]) -> list[tuple[Any, Any, KeyPath]]:
    extra = section.get("extra_hooks")
    found: list[tuple[Any, Any, KeyPath]] = [(section, "hook", ("hook",))] if "hook" in section else []
    return found + [
        (extra, index, ("extra_hooks", index)) for index in range(len(extra) if isinstance(extra, list) else 0)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
