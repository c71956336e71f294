"""Where hidden states live: in memory up to a bound, in files beyond it."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import torch


@dataclass
class Spool:
    """Keeps large intermediate tensors.

    Attributes:
        folder: where files go; None keeps everything in memory.
        memory: bytes that the spool's tensors may take in memory together; what comes on top goes to files.
    """

    folder: Path | None = None
    memory: int = 0
    _held: int = field(default=0, repr=False)
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    def collect(self, tensors: Iterable[torch.Tensor] = ()) -> SpooledTensors:
        """Return a list of tensors that the spool keeps, taking them over one by one."""
        kept = SpooledTensors(self)
        for tensor in tensors:
            kept.append(tensor)
        return kept

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor | _File:
        size = tensor.numel() * tensor.element_size()
        if self.folder is None or not size or self._held + size <= self.memory:
            self._held += size
            # A view would hold on to all of its base.
            return tensor.clone() if tensor._base is not None else tensor
        self.folder.mkdir(parents=True, exist_ok=True)
        return _File(self.folder / f"{next(self._numbers)}.bin", tensor)

    def _release(self, kept: torch.Tensor | _File) -> None:
        if isinstance(kept, _File):
            kept.remove()
        else:
            self._held -= kept.numel() * kept.element_size()

    def close(self) -> None:
        """Remove the files; the tensors are then lost."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


IN_MEMORY: Final = Spool()
"""Keeps everything in memory; it counts nothing that matters, so that all may share it."""


class SpooledTensors:
    """A list of tensors, of which only those are in memory that the spool has room for.

    A tensor that is taken from a file is mapped for as long as the caller holds on to it, and is back on the device on which it
    was; writing to it does not change the file. Tensors that are replaced or dropped give back their room.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._kept: list[torch.Tensor | _File] = []
        weakref.finalize(self, _release_all, spool, self._kept)

    def append(self, tensor: torch.Tensor) -> None:
        """Add a tensor at the end."""
        self._kept.append(self._spool._keep(tensor))

    def __getitem__(self, index: int) -> torch.Tensor:
        kept = self._kept[index]
        return kept.load() if isinstance(kept, _File) else kept

    def __setitem__(self, index: int, tensor: torch.Tensor) -> None:
        self._spool._release(self._kept[index])
        self._kept[index] = self._spool._keep(tensor)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))


def _release_all(spool: Spool, kept: list[torch.Tensor | _File]) -> None:
    for entry in kept:
        spool._release(entry)


class _File:
    """One tensor's bytes."""

    def __init__(self, path: Path, tensor: torch.Tensor) -> None:
        self._path = path
        self._shape, self._dtype, self._device = tensor.shape, tensor.dtype, tensor.device
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        with path.open("wb") as file:
            file.write(memoryview(flat.view(torch.uint8).numpy()))  # type: ignore[arg-type]

    def load(self) -> torch.Tensor:
        found = torch.from_file(str(self._path), shared=False, size=self._shape.numel(), dtype=self._dtype)
        return found.view(self._shape).to(self._device)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
