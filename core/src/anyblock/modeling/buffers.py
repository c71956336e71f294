"""Buffers that no checkpoint holds: rotary frequencies, embedding scales and the like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def rebuild_buffers(model: nn.Module, device: torch.device | str) -> None:
    """Compute every non-persistent buffer of `model` that is still on the meta device, on `device`.

    transformers' own initialisation (`_init_weights`) does it: that of the module, or else that of the model around it,
    which may fill the buffers of all layers (Falcon-H1). Parameters and stored buffers keep their values.
    """
    unfilled = dict[int, Any]()
    for owner, module in _with_owner(model):
        waiting = {
            name: buffer
            for name in module._non_persistent_buffers_set
            if (buffer := module._buffers.get(name)) is not None and buffer.is_meta
        }
        for name, buffer in waiting.items():
            own = module._buffers[name] = torch.empty_like(buffer, device=device)
            if own.is_floating_point():
                own.fill_(torch.nan)
        if waiting:
            with _initialised(module):
                owner._init_weights(module)
        if any(bool(module._buffers[name].isnan().any()) for name in waiting):  # type: ignore[union-attr]
            unfilled[id(owner)] = owner
    for owner in unfilled.values():
        with _initialised(owner):
            owner._init_weights(owner)


def _with_owner(model: nn.Module) -> Iterator[tuple[Any, nn.Module]]:
    """Yield `(nearest model above that can initialise, module)` for every module."""

    def walk(owner: Any, module: nn.Module) -> Iterator[tuple[Any, nn.Module]]:
        """Yield every module with the nearest one around it that initialises weights."""
        if hasattr(module, "_init_weights"):
            owner = module
        yield owner, module
        for child in module.children():
            yield from walk(owner, child)

    return walk(model, model)


@contextmanager
def _initialised(module: nn.Module) -> Iterator[None]:
    """Mark everything of the module that a checkpoint holds as initialised, which transformers' initialisers respect."""
    stored = module.state_dict(keep_vars=True).values()
    fresh = [tensor for tensor in stored if not getattr(tensor, "_is_hf_initialized", False)]
    for tensor in fresh:
        tensor._is_hf_initialized = True
    try:
        yield
    finally:
        for tensor in fresh:
            del tensor._is_hf_initialized
