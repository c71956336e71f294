"""The configuration that one decoder layer sees."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

_PARENT: Final = "_anyblock_parent"
_DIFFERENCES: Final = "_heterogeneity_spec"
_DELEGATED: Final = ("_attn_implementation_internal", "_experts_implementation_internal")


def layer_config(config: Any, overrides: Mapping[str, Any]) -> Any:
    """Return a copy of a Hugging Face config with `overrides` set, for one layer's constructor.

    The copy follows `config` in which attention and experts implementation is chosen: `set_attn_implementation` on a
    built model changes the model's config only, and a layer that kept the old choice would compute with other kernels.

    A layer with fewer query heads keeps the width of a head, also where the config does not state it and the constructor
    would divide the hidden size by the new number of heads.
    """
    own = copy.copy(config)
    # A layer's own copy says everything about that layer, and is no longer asked about others (`per_layer_config`).
    for name in (*_DELEGATED, _DIFFERENCES):
        own.__dict__.pop(name, None)
    if "num_attention_heads" in overrides and not getattr(own, "head_dim", None):
        # As `contract.cache_spec.head_width` says, which code that is copied into an export cannot import.
        own.head_dim = own.hidden_size // own.num_attention_heads
    for name, value in overrides.items():
        setattr(own, name, value)
    own.__dict__[_PARENT] = config
    own.__class__ = _following(type(config))
    return own


def per_layer_differences(arguments: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return in what a layer differs from the rest of its model of itself, as transformers' `per_layer_config` says (Gemma 4).

    Args:
        arguments: those of the layer's constructor, with the configuration among them.
        index: the layer's.
    """
    for value in arguments.values():
        spec = getattr(value, "__dict__", {}).get(_DIFFERENCES)
        if spec is not None:
            own = spec.per_layer_overrides.get(index, {})
            return {name: value for name, value in own.items() if name != "skip"}
    return {}


def _rebuild(base: type[Any], state: dict[str, Any]) -> Any:
    own = object.__new__(_following(base))
    own.__dict__.update(state)
    return own


_CLASSES: Final[dict[type[Any], type[Any]]] = {}


def _following(base: type[Any]) -> type[Any]:
    if base not in _CLASSES:
        body: dict[str, Any] = {name: _delegate(name) for name in _DELEGATED}
        body |= {"__reduce_ex__": _reduce, "__module__": base.__module__}
        _CLASSES[base] = type(base.__name__, (base,), body)
    return _CLASSES[base]


def _delegate(name: str) -> property:
    def read(self: Any) -> Any:
        return getattr(self.__dict__[_PARENT], name)

    def write(self: Any, value: Any) -> None:
        setattr(self.__dict__[_PARENT], name, value)

    return property(read, write)


def _reduce(self: Any, protocol: object) -> Any:
    """Name the base instead of the class that was made at run time, which pickle could not find."""
    return _rebuild, (type(self).__base__, dict(self.__dict__))
