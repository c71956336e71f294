"""A child as a Hugging Face directory, one weight file a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.companions import carry, companions
from anyblock.checkpoint.config import CONFIG
from anyblock.checkpoint.index import INDEX, index_bytes
from anyblock.checkpoint.jsonio import json_bytes
from anyblock.checkpoint.safetensors_writer import InMemory, write_safetensors
from anyblock.checkpoint.transfer import Copier

if TYPE_CHECKING:
    import torch

    from anyblock.checkpoint.subblocks import SubblockCheckpoint


def write_directory(
    child: SubblockCheckpoint,
    directory: Path,
    *,
    config: Mapping[str, Any],
    tensors: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] = lambda stored: stored,
) -> None:
    """Write weights, index and configuration of a child, and carry over whatever else it has.

    Groups are in memory one at a time, and mapped from the child's files as far as `tensors` leaves them as they are.

    Args:
        child: the child.
        directory: an existing, empty directory.
        config: the content of `config.json`.
        tensors: turns the tensors of one group into those that are written.

    Raises:
        CheckpointError: the child's files are damaged.
        OSError: the directory cannot be written.
    """
    files: dict[str, str] = {}
    total = 0
    with Copier({}, lambda _: None) as copier:
        carry(companions(child.path), directory, copier)
        for group in child.groups:
            parts = {name: InMemory(tensor) for name, tensor in tensors(child.load(group)).items()}
            file = f"model-{group}.safetensors"
            write_safetensors(directory / file, parts, copier)
            files.update(dict.fromkeys(parts, file))
            total += sum(part.nbytes for part in parts.values())
    (directory / INDEX).write_bytes(index_bytes(files, total))
    (directory / CONFIG).write_bytes(json_bytes(config))
