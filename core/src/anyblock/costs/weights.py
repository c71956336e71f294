"""What weights cost, counted from the shapes of tensors; nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.groups import NOT_LOADED
from anyblock.contract.blocks import HALVES, group_name
from anyblock.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

DTYPE_BYTES: dict[str, int] = {
    **dict.fromkeys(("int8", "uint8", "float8_e4m3fn", "float8_e5m2"), 1),
    **dict.fromkeys(("bfloat16", "float16"), 2),
    "float32": 4,
    "float64": 8,
}
"""Bytes of one element, by torch's name of the dtype."""


@dataclass(frozen=True)
class WeightCost:
    """Parameters and the bytes they take; costs add up."""

    params: int = 0
    bytes: int = 0

    def __add__(self, other: WeightCost) -> WeightCost:
        return WeightCost(self.params + other.params, self.bytes + other.bytes)


def dtype_bytes(dtype: str) -> int:
    """Return the bytes of one element of a dtype such as `bfloat16`.

    Raises:
        UsageError: the dtype is not known; the message has the nearest names.
    """
    name = dtype.removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise UsageError(f"unknown dtype {dtype!r}", expected=", ".join(DTYPE_BYTES), hint=nearest(name, DTYPE_BYTES))
    return DTYPE_BYTES[name]


def tensor_cost(tensors: Mapping[str, torch.Tensor], *, dtype: str | None = None) -> WeightCost:
    """Return the cost of tensors, which may be on the meta device.

    Every element of every tensor counts, buffers that a checkpoint stores included. Two names for one tensor object
    count once; tied weights that are stored twice are the business of `non_block_tensors`.

    Args:
        tensors: by name.
        dtype: count bytes as if floating-point tensors were stored in this dtype; None takes each tensor's own.
    """
    total = WeightCost()
    width = None if dtype is None else dtype_bytes(dtype)
    for tensor in {id(tensor): tensor for tensor in tensors.values()}.values():
        size = width if width is not None and tensor.is_floating_point() else tensor.element_size()
        total += WeightCost(tensor.numel(), tensor.numel() * size)
    return total


def is_tied(config: Any, text_config: Any | None = None) -> bool:
    """Return whether the output head shares its matrix with the input embedding.

    The whole model's config decides, and where it is silent the text config of a multimodal one.
    """
    own = getattr(config, "tie_word_embeddings", None)
    if own is None and text_config is not None:
        own = getattr(text_config, "tie_word_embeddings", None)
    return bool(own)


def without_tied_head(
    embeddings: Mapping[str, torch.Tensor], lm_head: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the `lm_head` group without a stored copy of the embedding matrix, for a model that ties the two.

    Checkpoints may or may not hold the copy. It is recognised by its shape: the only matrix of the group that is as large as
    an embedding; the final norm stays.
    """
    shapes = {tuple(tensor.shape) for tensor in embeddings.values() if tensor.dim() == 2}
    return {name: tensor for name, tensor in lm_head.items() if tensor.dim() != 2 or tuple(tensor.shape) not in shapes}


def non_block_groups(groups: Iterable[str], num_layers: int) -> list[str]:
    """Return the groups outside the subblocks: embeddings, head, extra groups, what is in neither half of a layer.

    Extra groups that are kept with the model and never loaded (`NOT_LOADED`) are not among them.
    """
    halves = {group_name(index, half) for index in range(num_layers) for half in HALVES}
    return [group for group in groups if group not in halves | NOT_LOADED]


def non_block_tensors(
    tensors: Mapping[str, Mapping[str, torch.Tensor]], *, tied: bool, num_layers: int
) -> dict[str, torch.Tensor]:
    """Return everything outside the subblocks, which no choice of candidates changes.

    Args:
        tensors: `{group: {name: tensor}}` of a subblock checkpoint, as `SubblockCheckpoint.meta` gives each group.
        tied: the output head is the embedding; a copy in the checkpoint then does not count.
        num_layers: layers of the model, which tells subblocks from other groups.
    """
    found: dict[str, torch.Tensor] = {}
    for group in non_block_groups(tensors, num_layers):
        members: Mapping[str, torch.Tensor] = tensors[group]
        if tied and group == "lm_head":
            members = without_tied_head(tensors.get("embeddings", {}), members)
        found |= members
    return found
