"""llama.cpp's shared library, as the wheel `xllamacpp` carries it, through ctypes."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


def library_path() -> Path | None:
    """Return the shared library's file, or None where `xllamacpp` is not installed. The package is not imported."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    (folder,) = spec.submodule_search_locations
    return next((path for pattern in ("*.so", "*.dylib", "*.pyd") for path in Path(folder).glob(pattern)), None)


@cache
def library() -> Any:
    """Return the loaded library, with the functions that this package calls declared.

    Raises:
        UsageError: it is not installed.
    """
    path = library_path()
    if path is None:
        raise UsageError(
            "llama.cpp's own code writes this storage type, and the package xllamacpp, which carries it, is not installed",
            hint="python -m pip install 'anyblock-gguf[llama-cpp]'",
        )
    loaded = ctypes.CDLL(str(path))
    wide, pointer = ctypes.c_int64, ctypes.c_void_p
    loaded.ggml_quantize_chunk.argtypes = (ctypes.c_int, pointer, pointer, wide, wide, wide, pointer)
    loaded.ggml_quantize_chunk.restype = ctypes.c_size_t
    return loaded


def quantize_rows(rows: np.ndarray, kind: int, block: tuple[int, int], weights: np.ndarray | None) -> np.ndarray:
    """Return rows as llama.cpp's `ggml_quantize_chunk` stores them, uint8 [rows, bytes of a row].

    Args:
        rows: float32 [rows, columns], contiguous.
        kind: the storage type's number, `gguf.GGMLQuantizationType`.
        block: how many values the type stores together, and in how many bytes.
        weights: how much the square of each column's error counts, float32 [columns], the same for all rows; None is 1.

    Raises:
        UsageError: the library is not installed.
    """
    import numpy as np

    count, columns = rows.shape
    size, nbytes = block
    out = np.empty((count, columns // size * nbytes), dtype=np.uint8)
    pointer = (
        None if weights is None else np.ascontiguousarray(weights, dtype=np.float32).ctypes.data_as(ctypes.c_void_p)
    )
    written = library().ggml_quantize_chunk(kind, rows.ctypes.data, out.ctypes.data, 0, count, columns, pointer)
    assert written == out.nbytes, "gguf and llama.cpp disagree about a block's bytes"
    return out
