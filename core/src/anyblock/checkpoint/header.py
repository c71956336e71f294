"""Reading the header of a safetensors file, and refusing every file that does not keep the format.

The format: eight bytes with the header's length (little-endian), the header (a JSON object), then the tensors' bytes
without gap or overlap. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.checkpoint.dtypes import BITS, torch_dtype
from anyblock.checkpoint.files import open_regular, read_exactly
from anyblock.checkpoint.json_io import parse_object, shown, unique
from anyblock.errors import CheckpointError

if TYPE_CHECKING:
    import torch

MAX_HEADER: Final = 100_000_000
"""Longest header in bytes, the bound of the safetensors library."""
MAX_DIMS: Final = 64
METADATA: Final = "__metadata__"
_FIELDS: Final = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor's bytes are, and what they mean.

    Attributes:
        dtype: the name of the element type in the format: `F32`, `BF16` ...
        shape: the sizes.
        start, end: absolute byte offsets in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.end - self.start

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def meta(self) -> torch.Tensor:
        """Return a tensor of this type and shape on the meta device.

        Raises:
            CheckpointError: torch has no such type.
        """
        import torch

        return torch.empty(self.shape, dtype=torch_dtype(self.dtype), device="meta")


@dataclass(frozen=True)
class Stamp:
    """What identifies a file's state: device, inode, size in bytes, and times of the last change in ns."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Take the stamp from `os.stat` or `os.fstat`."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds: its tensors in the order of their bytes, its metadata, and its state when read."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    stamp: Stamp


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file; nothing else of the file is read.

    Raises:
        CheckpointError: the file is missing, not a regular file, or not a well-formed safetensors file. The message
            names the file, and the tensor where there is one.
    """
    file = Path(path)
    with open_regular(file) as descriptor:
        stamp = Stamp.of(os.fstat(descriptor))
        if stamp.size < 8:
            raise CheckpointError(f"{file} has {stamp.size} bytes", expected="a safetensors file, which has at least 8")
        length = int.from_bytes(read_exactly(descriptor, 8, 0, file), "little")
        if length > MAX_HEADER:
            raise CheckpointError(f"{file} claims a header of {length:,} bytes", expected=f"at most {MAX_HEADER:,}")
        if 8 + length > stamp.size:
            raise CheckpointError(
                f"{file} claims a header of {length:,} bytes and has {stamp.size:,} in all", expected="a complete file"
            )
        raw = read_exactly(descriptor, length, 8, file)
    if not raw.startswith(b"{"):
        raise CheckpointError(
            f"{file}: the header starts with {raw[:1]!r}", expected="a safetensors header, which starts with '{'"
        )
    data = parse_object(raw, f"{file}: the header", on_object=lambda pairs: unique(pairs, f"{file}: the header"))
    metadata = _metadata(data.pop(METADATA, {}), file)
    entries = {name: _entry(name, info, 8 + length, file) for name, info in data.items()}
    tensors = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_coverage(tensors, 8 + length, stamp.size, file)
    return Header(tensors, metadata, stamp)


def _metadata(data: object, file: Path) -> dict[str, str]:
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise CheckpointError(
            f"{file}: {METADATA} is not a map from text to text", expected='for instance {"format": "pt"}'
        )
    for text in (*data, *data.values()):
        _check_unicode(text, f"{file}: {METADATA}: {shown(text)}")
    return data


def _entry(name: str, info: object, base: int, file: Path) -> TensorEntry:
    where = f"{file}: tensor {shown(name)}"
    _check_unicode(name, where)
    if not isinstance(info, dict) or info.keys() != _FIELDS:
        found = ", ".join(shown(key) for key in list(info)[:8]) if isinstance(info, dict) else shown(info)
        raise CheckpointError(f"{where} is described by {found or 'nothing'}", expected="dtype, shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise CheckpointError(f"{where} has the dtype {shown(dtype)}", expected=", ".join(BITS))
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(_is_size(size) for size in shape):
        raise CheckpointError(
            f"{where} has the shape {shown(shape)}", expected=f"at most {MAX_DIMS} integers, none negative"
        )
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        raise CheckpointError(f"{where} has the data_offsets {shown(offsets)}", expected="two integers, none negative")
    start, end = offsets
    bits = math.prod(shape) * BITS[dtype]
    if bits % 8 or end - start != bits // 8:
        raise CheckpointError(
            f"{where} has {end - start:,} bytes (data_offsets {shown(offsets)})",
            expected=f"{shown(bits // 8)} bytes for shape {shown(shape)} of {dtype}",
        )
    return TensorEntry(dtype, tuple(shape), base + start, base + end)


def _check_unicode(text: str, where: str) -> None:
    """Refuse half of a surrogate pair, which JSON can spell and no UTF-8 text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{where}: the text is not valid Unicode") from error


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _check_coverage(tensors: Mapping[str, TensorEntry], position: int, size: int, file: Path) -> None:
    """Check that the tensors, in the order of their starts, follow one another from the header to the file's end."""
    before = "the header"
    for name, entry in tensors.items():
        if entry.end > size:
            raise CheckpointError(
                f"{file}: tensor {shown(name)} ends at byte {entry.end:,}, the file at {size:,}",
                expected="a complete file",
                hint="download or copy it again",
            )
        if entry.start != position:
            fault = "overlaps" if entry.start < position else f"leaves a gap of {entry.start - position:,} bytes after"
            raise CheckpointError(
                f"{file}: tensor {shown(name)} {fault} {before}", expected="tensors that follow one another"
            )
        position, before = entry.end, f"tensor {shown(name)}"
    if position != size:
        raise CheckpointError(
            f"{file}: {size - position:,} bytes after {before} belong to no tensor",
            expected="nothing after the last tensor",
        )
