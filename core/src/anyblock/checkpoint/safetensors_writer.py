"""The tensors of a group file that is about to be written: stored in another file, or in memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.checkpoint.dtypes import safetensors_dtype
from anyblock.checkpoint.files import open_regular, read_exactly
from anyblock.checkpoint.header import TensorEntry
from anyblock.checkpoint.layout import PT, header_bytes, ordered
from anyblock.checkpoint.transfer import STRIDE, ByteRange, Copier, write_all

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stored:
    """A tensor whose bytes are copied from a file."""

    file: Path
    entry: TensorEntry


@dataclass(frozen=True)
class InMemory:
    """A tensor that is given, contiguous or not, on any device."""

    tensor: torch.Tensor

    @property
    def entry(self) -> TensorEntry:
        """Its type and shape, and where its bytes are in those of `content`."""
        return TensorEntry(safetensors_dtype(self.tensor.dtype), tuple(self.tensor.shape), 0, self.tensor.nbytes)

    def content(self) -> memoryview:
        """Return the bytes in row-major order; a tensor that is not contiguous on the CPU is copied for it."""
        import torch

        flat = self.tensor.detach().to("cpu").contiguous().reshape(-1)
        return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


Part = Stored | InMemory
_WORTH_PLACING: Final = 16 << 20
_COMPARED: Final = 1 << 20


def same_bytes(first: Stored, second: Stored) -> bool:
    """Return whether two tensors have the same type, shape and bytes; a megabyte of each is in memory at a time.

    Raises:
        CheckpointError: a file cannot be read.
    """
    if (first.entry.dtype, first.entry.shape) != (second.entry.dtype, second.entry.shape):
        return False
    with open_regular(first.file) as one, open_regular(second.file) as other:
        for start in range(0, first.entry.nbytes, _COMPARED):
            length = min(_COMPARED, first.entry.nbytes - start)
            bytes_ = read_exactly(one, length, first.entry.start + start, first.file)
            if bytes_ != read_exactly(other, length, second.entry.start + start, second.file):
                return False
    return True


def write_safetensors(
    file: Path, parts: Mapping[str, Part], copier: Copier, metadata: Mapping[str, str] = PT
) -> list[str]:
    """Write a new safetensors file and return the tensors' names in the order of their bytes.

    Neighbouring tensors that also are neighbours in a source file are copied by one call. One tensor in memory at a
    time is made contiguous.

    Raises:
        CheckpointError: a source cannot be read, or a tensor has a type that the format does not have.
        OSError: the file exists or cannot be written.
    """
    entries = {name: part.entry for name, part in parts.items()}
    names = ordered(entries)
    arranged = [parts[name] for name in names]
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        position = write_all(
            header_bytes({name: entries[name] for name in names}, metadata, **_placement(arranged)), descriptor, 0
        )
        for stored, run in itertools.groupby(arranged, key=lambda part: isinstance(part, Stored)):
            if stored:
                position = copier.copy(_ranges(run), descriptor, position)
                continue
            for part in run:
                if isinstance(part, InMemory):
                    position = copier.put(part.content(), descriptor, position)
    finally:
        os.close(descriptor)
    return names


def _placement(parts: Iterable[Part]) -> dict[str, int]:
    """Return where the data should start for the longest run of copied bytes to lie on strides as in its source."""
    offset = longest = length = rest = 0
    last: tuple[Path, int] | None = None
    for part in parts:
        if isinstance(part, Stored):
            length = length + part.entry.nbytes if last == (part.file, part.entry.start) else part.entry.nbytes
            last = (part.file, part.entry.end)
            if length > longest:
                longest, rest = length, (part.entry.end - offset - part.entry.nbytes) % STRIDE
        else:
            last = None
        offset += part.entry.nbytes
    return {"modulo": STRIDE, "rest": rest} if longest >= _WORTH_PLACING and rest % 8 == 0 else {}


def _ranges(run: Iterable[Part]) -> Iterable[ByteRange]:
    return (ByteRange(part.file, part.entry.start, part.entry.end) for part in run if isinstance(part, Stored))
