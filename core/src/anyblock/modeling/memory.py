"""How many layers a run holds at once, and from where on hidden states go to files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from anyblock.modeling.process_memory import resident
from anyblock.modeling.spool import Spool
from anyblock.modeling.system_memory import memory

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint

_LAYER: Final = re.compile(r"block_(\d+)_")
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
    """

    max_resident: int | None
    states: int | None
    layers: int

    @property
    def whole(self) -> bool:
        """Whether the whole model may be held in memory."""
        return self.max_resident is None

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
        layer = _LAYER.match(group)
        if layer:
            layers[int(layer[1])] += size
        else:
            outside += size
    return layers, outside


def plan_memory(
    layers: Mapping[int, int],
    outside: int,
    *,
    device: torch.device,
    limit: int | None = None,
    max_resident: int | None = None,
) -> MemoryPlan:
    """Decide from the sizes of weights as they are computed with.

    Args:
        layers: bytes by layer index.
        outside: bytes of what is always held: embedding, final norm and head.
        device: where layers run.
        limit: bytes that the process may take in all; None for what is available now on the device.
        max_resident: what the user asked for; None decides by the memory.
    """
    count, largest = len(layers), max(layers.values(), default=0)
    free = _free(device, limit)
    states = None if free is None else int(free * _FOR_STATES)
    if max_resident is None and free is not None:
        room = free * _FOR_WEIGHTS - _OUTSIDES * outside
        if sum(layers.values()) + _WORKING_LAYERS * largest > room:
            max_resident = min(max(int(room // max(largest, 1)) - _WORKING_LAYERS, 1), count)
    if max_resident is not None and max_resident >= count:
        max_resident = None
    return MemoryPlan(max_resident, states, count)


def _free(device: torch.device, limit: int | None) -> int | None:
    if device.type == "cpu":
        return memory()[1] if limit is None else max(limit - resident() - _LIBRARIES, 0)
    if device.type == "cuda":
        on_device = int(torch.cuda.mem_get_info(device)[0])
        return on_device if limit is None else min(on_device, limit)
    return limit
