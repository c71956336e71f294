"""Laying out a safetensors file: the order of its tensors, and its header."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Final

from anyblock.checkpoint.dtypes import BITS, alignment
from anyblock.checkpoint.header import MAX_HEADER, METADATA, TensorEntry
from anyblock.errors import CheckpointError

PT: Final[dict[str, str]] = {"format": "pt"}
"""The metadata that transformers asks for."""


def ordered(tensors: Mapping[str, TensorEntry]) -> list[str]:
    """Return the names of tensors with the widest element types first, otherwise in the given order.

    Every tensor then starts at a multiple of its element's size, as in files of the safetensors library, and tensors
    of one type that follow one another in a source file still do.
    """
    return sorted(tensors, key=lambda name: -alignment(tensors[name].dtype))


def header_bytes(
    tensors: Mapping[str, TensorEntry], metadata: Mapping[str, str] = PT, *, modulo: int = 8, rest: int = 0
) -> bytes:
    """Return everything before the first tensor's bytes, for tensors that follow one another in this order.

    Args:
        tensors: in the order of their bytes.
        metadata: the file's metadata.
        modulo, rest: the length is made `rest` modulo `modulo`; both multiples of 8, at which the format starts its
            tensors.

    Raises:
        CheckpointError: the header would be longer than the format allows.
    """
    data: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.nbytes
        data[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * ((rest - 8 - len(text)) % modulo)
    if len(text) > MAX_HEADER:
        raise CheckpointError(
            f"{len(tensors):,} tensors need a header of {len(text):,} bytes", expected=f"at most {MAX_HEADER:,}"
        )
    return len(text).to_bytes(8, "little") + text


def byte_size(dtype: str, shape: Iterable[int]) -> int:
    """Return the bytes of a tensor."""
    return math.prod(shape) * BITS[dtype] // 8
