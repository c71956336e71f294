"""The element types of the safetensors format: how many bits each takes, and its torch counterpart."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from anyblock.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_TORCH: Final[dict[str, str]] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
BITS: Final = {"BOOL": 8} | {
    name: int(re.sub(r"_.*|\D", "", name)) for name in (*_TORCH, "F4", "F6_E2M3", "F6_E3M2") if name != "BOOL"
}
"""Bits of one element, by the name that a safetensors header uses."""


def alignment(dtype: str) -> int:
    """Return the bytes at whose multiples a tensor of this type should start."""
    return max(1, BITS[dtype] // 8)


@cache
def torch_dtype(dtype: str) -> torch.dtype:
    """Return the torch type of a safetensors type.

    Raises:
        CheckpointError: torch has no such type (the packed 4 and 6 bit ones).
    """
    import torch

    found = getattr(torch, _TORCH.get(dtype, ""), None)
    if not isinstance(found, torch.dtype):
        raise CheckpointError(f"torch has no counterpart of the type {dtype}", expected=", ".join(_TORCH))
    return found


@cache
def _names() -> dict[torch.dtype, str]:
    import torch

    return {getattr(torch, name): dtype for dtype, name in _TORCH.items() if hasattr(torch, name)}


def safetensors_dtype(dtype: torch.dtype) -> str:
    """Return the safetensors name of a torch type.

    Raises:
        CheckpointError: the format has no such type.
    """
    found = _names().get(dtype)
    if found is None:
        raise CheckpointError(f"safetensors has no counterpart of {dtype}", expected=", ".join(map(str, _names())))
    return found
