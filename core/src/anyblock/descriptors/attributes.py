"""What a class says of a family by its attributes, checked when the class is made: a misspelled one would be silent."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final, get_args, get_type_hints

from anyblock.contract.hookspecs import FamilySpec
from anyblock.errors import PluginError, nearest

_CODE: Final = (FunctionType, ModuleType, type, property, classmethod, staticmethod, functools.cached_property)


def check_attributes(cls: type[Any], declaring: Iterable[type[Any]]) -> None:
    """Hold the data among a class's own attributes to the annotations of the bases that declare them.

    A name that begins with an underscore is the family's own.

    Raises:
        PluginError: no base declares an attribute, or its value is of another type; the message names all of them.
    """
    known = _annotated(tuple(declaring))
    faults = []
    for name, value in vars(cls).items():
        if name.startswith("_") or isinstance(value, _CODE) or callable(value) or hasattr(FamilySpec, name):
            continue
        if name not in known:
            near = nearest(name, known) or "one of the family's own begins with an underscore"
            faults.append(f"{name} is not an attribute of a descriptor; {near}")
        elif reason := _refused(known[name], value):
            faults.append(f"{name} is {value!r}: {reason}")
    if faults:
        raise PluginError(
            f"{cls.__name__}: {'; '.join(faults)}",
            expected="the class attributes that its bases document",
            hint="core/docs/contract.md lists them",
        )


@functools.lru_cache(maxsize=64)
def _annotated(classes: tuple[type[Any], ...]) -> Mapping[str, Any]:
    hints = {name: hint for cls in reversed(classes) for name, hint in get_type_hints(cls).items()}
    return {name: next(iter(get_args(hint)), hint) for name, hint in hints.items()}


@functools.lru_cache(maxsize=64)
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def _refused(hint: Any, value: Any) -> str:
    from pydantic import ValidationError

    try:
        _adapter(hint).validate_python(value)
    except ValidationError as error:
        text = str(error.errors(include_url=False)[0]["msg"])
        return text[:1].lower() + text[1:]
    return ""
