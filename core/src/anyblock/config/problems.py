"""Turning what validation found into one message that names every key, its line and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from anyblock.contract.config_tree import KeyPath, Tree, dotted
from anyblock.errors import ConfigError, nearest
from anyblock.plugins.known import missing


def configuration_error(error: ValidationError, tree: Tree, model: type[BaseModel]) -> ConfigError:
    """Return one `ConfigError` that lists every fault which `model` found in `tree`."""
    faults = [line for fault in error.errors(include_url=False) for line in _describe(dict(fault), tree, model)]
    return gathered(list(dict.fromkeys(faults)))


def gathered(faults: Sequence[str]) -> ConfigError:
    """Return one error for one or more faults, each a line of its own."""
    if len(faults) == 1:
        return ConfigError(faults[0])
    return ConfigError(f"{len(faults)} faults in the configuration\n" + "\n".join(f"  {fault}" for fault in faults))


def _describe(fault: Mapping[str, Any], tree: Tree, model: type[BaseModel]) -> Iterator[str]:
    path: KeyPath = tuple(part for part in fault["loc"] if part != "[key]")
    match fault["type"]:
        case "several":
            for part in fault["ctx"]["faults"]:
                yield f"{tree.place((*path, *part['path']))}: {part['text']}"
        case "extra_forbidden":
            if absent := missing("sections of the configuration", "section", dotted(path)):
                yield f"{tree.place(path)}: {absent['what']}; {absent['hint']}"
                return
            known = _keys_at(path[:-1], model)
            hint = nearest(str(path[-1]), known) or f"known keys: {', '.join(known)}"
            yield f"{tree.place(path)}: unknown key; {hint}"
        case "missing":
            yield f"{tree.place(path)}: is required and not set"
        case _:
            text = str(fault["msg"]).removeprefix("Value error, ")
            given = fault["input"]
            shown = "" if isinstance(given, dict | BaseModel) else f" ({given!r} was given)"
            yield f"{tree.place(path)}: {text[:1].lower() + text[1:]}{shown}"


def _keys_at(path: KeyPath, model: type[BaseModel]) -> list[str]:
    """Return the keys that are valid below `path`."""
    for part in path:
        field = model.model_fields.get(str(part))
        section = section_class(field.annotation) if field else None
        if section is None:
            # A name that the user chooses: the section stays the one of the values.
            continue
        model = section
    return sorted(model.model_fields)


def section_class(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, also where it is optional; None for a plain value."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((found for found in candidates if isinstance(found, type) and issubclass(found, BaseModel)), None)
