"""Buffers that no checkpoint holds: rotary frequencies, embedding scales and the like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def rebuild_buffers(model: nn.Module, device: torch.device | str) -> None:
    """Compute every non-persistent buffer of `model` that is still on the meta device, on `device`.

    transformers' own initialisation (`_init_weights`) does it; parameters of the same modules that are loaded already
    keep their values.
    """
    for owner, module in _with_owner(model):
        waiting = {
            name: buffer
            for name in module._non_persistent_buffers_set
            if (buffer := module._buffers.get(name)) is not None and buffer.is_meta
        }
        for name, buffer in waiting.items():
            module._buffers[name] = torch.empty_like(buffer, device=device)
        if waiting:
            with _initialised(module):
                owner._init_weights(module)


def _with_owner(model: nn.Module) -> Iterator[tuple[Any, nn.Module]]:
    """Yield `(nearest model above that can initialise, module)` for every module."""

    def walk(owner: Any, module: nn.Module) -> Iterator[tuple[Any, nn.Module]]:
        if hasattr(module, "_init_weights"):
            owner = module
        yield owner, module
        for child in module.children():
            yield from walk(owner, child)

    return walk(model, model)


@contextmanager
def _initialised(module: nn.Module) -> Iterator[None]:
    """Mark the module's own parameters as initialised, which transformers' initialisers respect."""
    fresh = [tensor for tensor in module.parameters() if not getattr(tensor, "_is_hf_initialized", False)]
    for tensor in fresh:
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for tensor in fresh:
            del tensor._is_hf_initialized  # type: ignore[attr-defined]
