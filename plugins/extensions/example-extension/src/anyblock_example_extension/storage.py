"""Storage types: integers with one scale a row."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from anyblock.contract.storage_type import StorageType

if TYPE_CHECKING:
    import torch


class IntegerRows(StorageType):
    """Each row of a matrix as integers, times one float32; vectors stay float32.

    Args:
        bits: of an integer.
    """

    format = "layer-table"
    plain = "int16_rows"

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.summary = f"integers of {bits} bits with one scale a row"

    def stored_as(self, name: str, shape: Sequence[int]) -> str:
        """See `StorageType.stored_as`."""
        return f"int{self.bits}_rows" if len(shape) > 1 else "float32"

    def nbytes(self, name: str, shape: Sequence[int]) -> int:
        """See `StorageType.nbytes`."""
        return prod(shape) * self.bits // 8 + 4 * prod(shape[:-1]) if len(shape) > 1 else 4 * prod(shape)

    def rounded(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """See `StorageType.rounded`."""
        if tensor.dim() < 2:
            return tensor.float()
        largest = tensor.float().abs().amax(-1, keepdim=True).clamp(min=1e-30)
        scales: torch.Tensor = largest / (2 ** (self.bits - 1) - 1)
        return (tensor / scales).round() * scales
