"""Turning what validation found into one message that names every key, its line and the nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from anyblock.config.tree import KeyPath, Tree, dotted
from anyblock.errors import ConfigError, nearest


def configuration_error(error: ValidationError, tree: Tree, model: type[BaseModel]) -> ConfigError:
    """Return one `ConfigError` that lists every fault which `model` found in `tree`."""
    lines = [_describe(dict(fault), tree, model) for fault in error.errors(include_url=False)]
    faults = list(dict.fromkeys(lines))
    if len(faults) == 1:
        return ConfigError(faults[0])
    return ConfigError(f"{len(faults)} faults in the configuration\n" + "\n".join(f"  {fault}" for fault in faults))


def _describe(fault: Mapping[str, Any], tree: Tree, model: type[BaseModel]) -> str:
    context = fault.get("ctx", {})
    path: KeyPath = tuple(fault["loc"]) + tuple(context.get("path", ()))
    path = tuple(part for part in path if part != "[key]")
    origin = tree.origin(path)
    place = f"{origin}: {dotted(path)}" if origin else dotted(path)
    match fault["type"]:
        case "extra_forbidden":
            known = _keys_at(path[:-1], model)
            hint = nearest(str(path[-1]), known) or f"known keys: {', '.join(known)}"
            return f"{place}: unknown key; {hint}"
        case "missing":
            return f"{place or dotted(path)}: is required and not set"
        case _:
            text = str(fault["msg"]).removeprefix("Value error, ")
            given = fault.get("input")
            is_plain = not isinstance(given, dict | BaseModel) and "path" not in context
            shown = f" ({given!r} was given)" if is_plain else ""
            return f"{place}: {text[:1].lower() + text[1:]}{shown}"


def _keys_at(path: KeyPath, model: type[BaseModel]) -> list[str]:
    """Return the keys that are valid below `path`."""
    for part in path:
        field = model.model_fields.get(str(part))
        section = _section(field.annotation) if field else None
        if section is None:
            # A free name, as a kind below `pruning.other`: the section stays the one of the values.
            continue
        model = section
    return sorted(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((found for found in candidates if isinstance(found, type) and issubclass(found, BaseModel)), None)
