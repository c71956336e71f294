"""Building every decoder layer of a stock model from a configuration of its own.

This module, `layer_config`, `no_op`, `nothing` and `linear_half` need torch and nothing else: they also go along with an
exported checkpoint.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from torch import nn

from .layer_config import layer_config
from .no_op import BUILDING, INDEX_NAMES

Plan = Callable[[type[nn.Module], Mapping[str, Any], int], tuple[Mapping[str, Any], Callable[[nn.Module], None]]]
"""Says how one layer is built: `(layer class, constructor's arguments, index) -> (config overrides, what follows)`."""


@dataclass
class LayerScope:
    """What is known while layers are built.

    Attributes:
        plan: how each is built.
        building: objects under construction, by id.
        built: how many layers were built so far.
        counts: whether the constructor of one of them takes no index, or under an unusual name.
    """

    plan: Plan
    building: set[int] = field(default_factory=set)
    built: int = 0
    counts: bool = False


@dataclass
class _Patch:
    own: Any  # what the class itself had under `__init__`; None when it inherits it
    users: int = 0


# The scope belongs to the thread (or task) that opened it; a class stays patched only while some thread is in a scope.
_SCOPE: ContextVar[LayerScope | None] = ContextVar("layer_scope", default=None)
_PATCHES: dict[type[nn.Module], _Patch] = {}
_LOCK: Final = threading.Lock()


@contextmanager
def layer_scope(classes: Sequence[type[nn.Module]], plan: Plan) -> Iterator[LayerScope]:
    """Within this scope, and in this thread only, layers of these classes are built as `plan` says.

    Each layer's constructor receives a copy of the config it is given, with the plan's overrides. The layer's index is
    among the constructor's arguments, under one of `INDEX_NAMES`; otherwise it is how many layers were built before.
    Nothing stays patched afterwards.
    """
    with _LOCK:
        for cls in classes:
            _patch(cls)
    scope = LayerScope(plan)
    token = _SCOPE.set(scope)
    try:
        yield scope
    finally:
        _SCOPE.reset(token)
        with _LOCK:
            for cls in classes:
                _unpatch(cls)


def find_layer_index(arguments: Mapping[str, Any]) -> int | None:
    """Return a layer's index from its constructor's arguments; None when none of them is one."""
    return next((int(arguments[name]) for name in INDEX_NAMES if isinstance(arguments.get(name), int)), None)


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
        """Build a layer; inside a scope, with what the scope has for it."""
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


def _build(scope: LayerScope, layer: nn.Module, original: Callable[..., None], bound: inspect.BoundArguments) -> None:
    index = find_layer_index(bound.arguments)
    if index is None:
        index = scope.built
        scope.counts = True
    scope.built += 1
    overrides, finish = scope.plan(type(layer), bound.arguments, index)
    name, config = next(
        ((name, value) for name, value in bound.arguments.items() if name != "self" and hasattr(value, "to_dict")),
        ("", None),
    )
    if config is None:
        raise TypeError(
            f"the constructor of {type(layer).__name__} takes no configuration that a layer could differ in"
        )
    bound.arguments[name] = layer_config(config, overrides)
    original(*bound.args, **bound.kwargs)
    token = BUILDING.set(index)
    try:
        finish(layer)
    finally:
        BUILDING.reset(token)
