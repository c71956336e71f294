"""The scope within which a stock model class builds every layer from its own block config."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from anyblock.blocks import BlockConfig
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.layer_config import layer_config

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

_INDEX_NAMES: Final = ("layer_idx", "layer_id", "layer_index", "idx", "layer_number")


@dataclass
class _Scope:
    family: ModelFamily
    block_configs: Sequence[BlockConfig]
    overrides: list[Mapping[str, Any]]
    building: set[int] = field(default_factory=set)


@dataclass
class _Patch:
    own: Any  # what the class itself had under `__init__`; None when it inherits it
    users: int = 0


# The scope belongs to the thread (or task) that opened it; a class stays patched only while some thread is in a scope.
_SCOPE: ContextVar[_Scope | None] = ContextVar("anyblock_scope", default=None)
_PATCHES: dict[type[nn.Module], _Patch] = {}
_LOCK: Final = threading.Lock()


@contextmanager
def heterogeneous(family: ModelFamily, block_configs: Sequence[BlockConfig]) -> Iterator[None]:
    """Within this scope, and in this thread only, the family's decoder layers are built from `block_configs`.

    Each layer's constructor receives a config of its own (`block_config_to_layer_overrides`), and a half that is a no-op
    is removed right after construction. The layer's index is read from the constructor's arguments. Nothing stays
    patched afterwards.

    Raises:
        UnsupportedModelError: a layer's constructor has no index argument, or an index beyond `block_configs`.
    """
    classes = family.decoder_layer_cls()
    scope = _Scope(family, block_configs, [family.block_config_to_layer_overrides(block) for block in block_configs])
    with _LOCK:
        for cls in classes:
            _patch(cls)
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)
        with _LOCK:
            for cls in classes:
                _unpatch(cls)


def _patch(cls: type[nn.Module]) -> None:
    patch = _PATCHES.get(cls)
    if patch is None:
        patch = _PATCHES[cls] = _Patch(own=cls.__dict__.get("__init__"))
        cls.__init__ = _constructor(cls.__init__)  # type: ignore[method-assign]
    patch.users += 1


def _unpatch(cls: type[nn.Module]) -> None:
    patch = _PATCHES[cls]
    patch.users -= 1
    if patch.users:
        return
    del _PATCHES[cls]
    if patch.own is None:
        del cls.__init__
    else:
        cls.__init__ = patch.own  # type: ignore[method-assign]


def _constructor(original: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def construct(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        scope = _SCOPE.get()
        # A layer class whose base is a layer class too calls this twice for one object: only the outer call counts.
        if scope is None or id(self) in scope.building:
            original(self, *args, **kwargs)
            return
        scope.building.add(id(self))
        try:
            _build(scope, self, original, signature.bind(self, *args, **kwargs))
        finally:
            scope.building.discard(id(self))

    return construct


def _build(scope: _Scope, layer: nn.Module, original: Callable[..., None], bound: inspect.BoundArguments) -> None:
    index = layer_index(type(layer), bound.arguments)
    if index >= len(scope.block_configs):
        raise UnsupportedModelError(
            f"{type(layer).__name__} is built with index {index}, but there are {len(scope.block_configs)} block configs",
            expected="one block config for every decoder layer",
        )
    name, config = next(
        (name, value) for name, value in bound.arguments.items() if name != "self" and hasattr(value, "to_dict")
    )
    bound.arguments[name] = layer_config(config, scope.overrides[index])
    original(*bound.args, **bound.kwargs)
    block = scope.block_configs[index]
    if block.attention.no_op:
        scope.family.attn_no_op_post_init(layer)
    if block.ffn.no_op:
        scope.family.mlp_no_op_post_init(layer)


def layer_index(cls: type[nn.Module], arguments: Mapping[str, Any]) -> int:
    """Return a layer's index from its constructor's arguments.

    Raises:
        UnsupportedModelError: none of the arguments is a layer index.
    """
    for name in _INDEX_NAMES:
        if isinstance(arguments.get(name), int):
            return int(arguments[name])
    raise UnsupportedModelError(
        f"the constructor of {cls.__name__} has no layer index among {sorted(set(arguments) - {'self'})}",
        expected=f"one of {', '.join(_INDEX_NAMES)}",
    )
