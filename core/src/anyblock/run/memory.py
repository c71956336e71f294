"""How many layers a run holds at once, and from where on hidden states go to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from anyblock.contract.blocks import layer_of
from anyblock.modeling.process_memory import resident
from anyblock.modeling.spool import Spool
from anyblock.modeling.system_memory import memory

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint

_WORKING_LAYERS: Final = 3
"""Besides resident layers: a variant, its half of the teacher in sorted order, and what converting a dtype takes."""
_OUTSIDES: Final = 2
"""The evaluation holds the embedding and the head of child and teacher side by side."""
_LIBRARIES: Final = 160 << 20
"""Bytes of libraries' code that come into memory only when layers run: torch with MKL, measured on x86-64 Linux."""
_FOR_WEIGHTS: Final = 0.6
_FOR_STATES: Final = 0.1
"""Shares of the memory; the rest is for what a layer computes, for logits, and for second moments."""


@dataclass(frozen=True)
class MemoryPlan:
    """What may be held at once.

    Attributes:
        max_resident: layers whose weights are in memory; None for all of them.
        states: bytes of hidden states, gradients and teacher logits in memory; None for all of them.
        layers: how many layers the model has.
        room: bytes for layers by device, where the model is spread over several; None where it is not.
    """

    max_resident: int | None
    states: int | None
    layers: int
    room: dict[torch.device, int] | None = None

    @property
    def whole(self) -> bool:
        """Whether the whole model may be held in memory, on one device."""
        return self.max_resident is None and self.room is None

    def spool(self, folder: Path) -> Spool:
        """Return a spool that keeps to the plan; its files go into `folder`."""
        return Spool(None) if self.states is None else Spool(folder, self.states)


def weight_sizes(checkpoint: SubblockCheckpoint, dtype: torch.dtype) -> tuple[dict[int, int], int]:
    """Return the bytes of every layer's weights by its index, and of all others, as they are when computed with in `dtype`."""
    layers = dict.fromkeys(range(len(checkpoint.block_configs)), 0)
    outside = 0
    for group in checkpoint.model_groups:
        size = sum(
            tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.element_size())
            for tensor in checkpoint.meta(group).values()
        )
        layer = layer_of(group)
        if layer is not None:
            layers[layer] += size
        else:
            outside += size
    return layers, outside


def plan_memory(
    layers: Mapping[int, int],
    outside: int,
    *,
    device: torch.device,
    others: Sequence[torch.device] = (),
    spread: bool = False,
    limit: int | None = None,
    max_resident: int | None = None,
) -> MemoryPlan:
    """Decide from the sizes of weights as they are computed with.

    Args:
        layers: bytes by layer index.
        outside: bytes of what is always held: embedding, final norm and head.
        device: where layers run.
        others: devices on which layers may run as well. They are used when the model does not fit on the first one, and does on
            all of them together; otherwise layers come and go on the first one.
        spread: use the others also when the model fits on the first one.
        limit: bytes that the process may take in all, or on each of several devices; None for what is available now.
        max_resident: what the user asked for; None decides by the memory.
    """
    count, largest = len(layers), max(layers.values(), default=0)
    free = _free(device, limit)
    states = None if free is None else int(free * _FOR_STATES)
    if max_resident is None and free is not None:
        room = free * _FOR_WEIGHTS - _OUTSIDES * outside
        too_large = sum(layers.values()) + _WORKING_LAYERS * largest > room
        if others and (spread or too_large):
            shared = _shared(
                {device: room, **{other: (_free(other, limit) or 0) * _FOR_WEIGHTS for other in others}}, layers
            )
            if shared is not None:
                return MemoryPlan(None, states, count, shared)
        if too_large:
            max_resident = min(max(int(room // max(largest, 1)) - _WORKING_LAYERS, 1), count)
    if max_resident is not None and max_resident >= count:
        max_resident = None
    return MemoryPlan(max_resident, states, count)


def _shared(room: Mapping[torch.device, float], layers: Mapping[int, int]) -> dict[torch.device, int] | None:
    """Return the bytes for layers by device; None when the layers do not fit on these together."""
    largest = max(layers.values(), default=0)
    # accelerate keeps one more layer's room on the first device.
    left = {device: max(int(size) - _WORKING_LAYERS * largest, 0) for device, size in room.items()}
    fit = sum(size // max(largest, 1) for size in left.values())
    return left if fit > len(layers) and all(size >= largest for size in left.values()) else None


def _free(device: torch.device, limit: int | None) -> int | None:
    if device.type == "cpu":
        return memory()[1] if limit is None else max(limit - resident() - _LIBRARIES, 0)
    if device.type == "cuda":
        on_device = int(torch.cuda.mem_get_info(device)[0])
        return on_device if limit is None else min(on_device, limit)
    return limit
