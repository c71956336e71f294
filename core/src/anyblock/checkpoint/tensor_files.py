"""Tensors in a few safetensors files, mapped one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anyblock.checkpoint.header import read_header
from anyblock.checkpoint.safetensors_writer import Stored, write_safetensors
from anyblock.checkpoint.transfer import Copier

if TYPE_CHECKING:
    import torch


class TensorFiles(Mapping[str, "torch.Tensor"]):
    """Tensors by name, none of which is in memory before it is asked for, and only as long as the caller holds it.

    Args:
        files: safetensors files; no name is in two of them.

    Raises:
        CheckpointError: a file is missing or damaged.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        headers = {file: read_header(file) for file in files}
        self._stored = {
            name: Stored(file, entry) for file, header in headers.items() for name, entry in header.tensors.items()
        }
        self._stamps = {file: header.stamp for file, header in headers.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(self._stored[name].file, framework="pt") as handle:
            tensor: torch.Tensor = handle.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def join(self, output: Path) -> None:
        """Write all tensors into one new file, by byte ranges.

        Raises:
            CheckpointError: a file was changed in the meantime.
            OSError: the output exists or cannot be written.
        """
        with Copier(self._stamps, lambda _: None) as copier:
            write_safetensors(output, self._stored, copier)
