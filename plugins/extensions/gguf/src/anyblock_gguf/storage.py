"""Storage types: which one a tensor gets, and its bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import gguf
from anyblock.errors import UnsupportedModelError
from gguf import GGMLQuantizationType as Kind

from anyblock_gguf.library import quantize_rows

if TYPE_CHECKING:
    import numpy as np
    import torch

    from anyblock_gguf.settings import GgufSettings

_SMALLER_BLOCKS: Final = {
    Kind.Q2_K: Kind.IQ4_NL,
    Kind.Q3_K: Kind.IQ4_NL,
    Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0,
}
"""What llama.cpp's own quantizer (`llama-quant.cpp`) takes instead of a type with blocks of 256."""
IN_PYTHON: Final = frozenset({Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q5_0, Kind.Q4_0, Kind.MXFP4})
"""Types that the package `gguf` writes as llama.cpp does, to the byte."""
_EXACT: Final = re.compile(
    r"\.bias$|\.(?:ffn_gate_inp|ffn_gate_inp_shexp|ssm_conv1d|ssm_a|ssm_d|ssm_norm)(?:\.weight)?$"
)
"""Tensors that llama.cpp reads in F32 alone, or whose rounding would choose other experts."""


def wanted_kind(name: str, dimensions: int, settings: GgufSettings, searched: str) -> Kind:
    """Return the storage type that the settings ask for.

    Args:
        name: the tensor's name in the file.
        dimensions: how many it has.
        settings: those of the format.
        searched: the type that counts where the settings name none.
    """
    if dimensions == 1 or _EXACT.search(name):
        return Kind.F32
    own = {"token_embd.weight": settings.embedding_type, "output.weight": settings.head_type}.get(name)
    chosen = next((kind for pattern, kind in settings.tensor_types.items() if re.search(pattern, name)), own)
    return Kind[(chosen or settings.type or searched).upper()]


def allowed_kind(kind: Kind, columns: int) -> Kind:
    """Return the type, or the next larger one whose blocks divide rows of so many columns."""
    while columns % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = _SMALLER_BLOCKS.get(kind, Kind.F16)
    return kind


def stored_bytes(kind: Kind, shape: tuple[int, ...]) -> int:
    """Return how many bytes a tensor of that shape takes."""
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    values = 1
    for size in shape:
        values *= size
    return int(values // block * nbytes)


def stored(name: str, tensor: torch.Tensor, kind: Kind, importance: Mapping[str, torch.Tensor]) -> Any:
    """Return a tensor's bytes as a numpy array, rows last.

    Args:
        name: its name in the file.
        tensor: of one to three dimensions, the last one what a row holds.
        kind: the storage type; it divides the rows.
        importance: by name, how much each column's error counts, [columns] or, for stacked experts, [experts, columns].

    Raises:
        UnsupportedModelError: a value is too large for the type's 16-bit floats.
        UsageError: llama.cpp's library is needed and not installed.
    """
    import numpy as np

    wide = tensor.float()
    limited = wide.half() if kind not in (Kind.F32, Kind.BF16) else wide
    if not limited.isfinite().all():
        raise UnsupportedModelError(
            f"{name} has values that are no float16",
            hint="export it with type=bf16, or in a format that keeps the dtype",
        )
    rows: np.ndarray = wide.contiguous().numpy()
    weights = importance.get(name)
    if kind in IN_PYTHON and (weights is None or kind in (Kind.F32, Kind.F16, Kind.BF16)):
        return gguf.quants.quantize(rows, kind)
    parts = rows.reshape(-1, *rows.shape[-2:])
    counts = [None] * len(parts) if weights is None else list(weights.reshape(-1, rows.shape[-1]).numpy())
    if len(counts) == 1:
        counts *= len(parts)
    block = gguf.GGML_QUANT_SIZES[kind]
    done = [quantize_rows(part, int(kind), block, count) for part, count in zip(parts, counts, strict=True)]
    return np.concatenate(done).reshape(*rows.shape[:-1], -1)
