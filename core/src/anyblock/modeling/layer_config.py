"""The configuration that one decoder layer sees."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

_PARENT: Final = "_anyblock_parent"
_DELEGATED: Final = ("_attn_implementation_internal", "_experts_implementation_internal")


def layer_config(config: Any, overrides: Mapping[str, Any]) -> Any:
    """Return a copy of a Hugging Face config with `overrides` set, for one layer's constructor.

    The copy follows `config` in which attention and experts implementation is chosen: `set_attn_implementation` on a
    built model changes the model's config only, and a layer that kept the old choice would compute with other kernels.
    """
    own = copy.copy(config)
    for name, value in overrides.items():
        setattr(own, name, value)
    for name in _DELEGATED:
        own.__dict__.pop(name, None)
    own.__dict__[_PARENT] = config
    own.__class__ = _following(type(config))
    return own


def _rebuild(base: type[Any], state: dict[str, Any]) -> Any:
    own = base.__new__(_following(base))
    own.__dict__.update(state)
    return own


@cache
def _following(base: type[Any]) -> type[Any]:
    def delegate(name: str) -> property:
        def read(self: Any) -> Any:
            return getattr(self.__dict__[_PARENT], name)

        def write(self: Any, value: Any) -> None:
            setattr(self.__dict__[_PARENT], name, value)

        return property(read, write)

    # The class is made at run time, so pickling has to name its base instead.
    def reduce(self: Any, protocol: object) -> Any:
        return _rebuild, (base, dict(self.__dict__))

    body: dict[str, Any] = {name: delegate(name) for name in _DELEGATED}
    return type(base.__name__, (base,), {**body, "__reduce_ex__": reduce, "__module__": base.__module__})
