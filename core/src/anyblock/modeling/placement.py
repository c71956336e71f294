"""Which layer lives on which device, where a model is spread over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from anyblock.errors import ExecutionError, UsageError


def place_layers(
    layers: Sequence[nn.Module], room: Mapping[torch.device, int], dtype: torch.dtype
) -> list[torch.device]:
    """Return the device of every layer: runs of neighbours, as even as the room allows, by accelerate's planner.

    Args:
        layers: the decoder layers; they may be on the meta device, as only their sizes are looked at.
        room: bytes for layers by device, in the order in which layers are to pass through them.
        dtype: what the weights are computed with.

    Raises:
        UsageError: accelerate is not installed.
        ExecutionError: the layers do not fit.
    """
    try:
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_balanced_memory
    except ImportError as error:
        raise UsageError(
            "a model is spread over several devices by accelerate, which is not installed",
            hint='pip install "anyblock[devices]", or name one device, as in device=cuda:0',
        ) from error

    devices, classes = list(room), sorted({type(layer).__name__ for layer in layers})
    given: dict[int | str, int | str] = dict(enumerate(room.values()))
    modules = nn.ModuleList(layers)
    balanced = get_balanced_memory(modules, max_memory=dict(given), no_split_module_classes=classes, dtype=dtype)
    # An even share of the first devices may be more than what the later ones leave over; then they are filled in order.
    for share in (balanced, given):
        found = infer_auto_device_map(
            modules, max_memory=share, no_split_module_classes=classes, dtype=dtype, clean_result=False
        )
        places = [found.get(str(index), 0) for index in range(len(layers))]
        if all(isinstance(place, int) for place in places):
            return [devices[place] for place in places]
    raise ExecutionError(
        f"{len(layers)} layers do not fit on {', '.join(map(str, devices))}",
        hint="name one device: its layers then come and go, see memory.max_resident",
    )


def moved(value: Any, device: torch.device) -> Any:
    """Return what a layer receives or gives, with every tensor in it on `device`; what is there already is not copied."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(part, device) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(moved(part, device) for part in value)
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    return value


def move_buffers(layer: nn.Module, device: torch.device) -> None:
    """Move a layer's buffers; its weights come to the device when they are loaded."""
    for module in layer.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                module._buffers[name] = buffer.to(device)
