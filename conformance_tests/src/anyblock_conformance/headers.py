"""Shapes and dtypes of a checkpoint's tensors, read from headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anyblock.checkpoint.source_checkpoint import SourceCheckpoint


@dataclass(frozen=True)
class Shape:
    """What a header says about one tensor.

    Attributes:
        dtype: its name in the safetensors format (`F32`, `BF16` ...); empty for a tensor that is yet to be computed.
        sizes: its sizes; None for a tensor that is yet to be computed.
    """

    dtype: str
    sizes: tuple[int, ...] | None


def source_shapes(path: Path) -> dict[str, Shape]:
    """Return every tensor of a local checkpoint.

    Raises:
        CheckpointError: the files are damaged.
    """
    found = SourceCheckpoint.open(path).tensors
    return {name: Shape(entry.dtype, entry.shape) for name, (_, entry) in found.items()}
