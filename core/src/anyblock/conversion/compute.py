"""Computing the tensors that a checkpoint stores in another form, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.header import read_header
from anyblock.checkpoint.safetensors_writer import InMemory, Stored, write_safetensors
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.tempfiles import temporary_name
from anyblock.checkpoint.transfer import Copier

if TYPE_CHECKING:
    import torch

    from anyblock.family import ModelFamily


@contextmanager
def compute_parts(
    family: ModelFamily, computed: Mapping[str, tuple[str, ...]], source: SourceCheckpoint, view: Any, folder: Path
) -> Iterator[dict[str, Stored]]:
    """Compute tensors and yield them as parts that are stored in scratch files, which go at the end.

    A file's header states the sizes of all its tensors, and those are known only when the last one is computed. The
    scratch files keep memory at one tensor with its sources.

    Args:
        family: whose `dequantize_tensor` computes.
        computed: `{name: source tensors}`.
        source: where the source tensors are.
        view: the model's configuration.
        folder: an existing directory for the scratch files.

    Raises:
        CheckpointError: a source cannot be read.
    """
    scratch: list[Path] = []
    parts: dict[str, Stored] = {}
    try:
        for name, names in computed.items():
            file = folder / temporary_name("computed")
            scratch.append(file)
            tensor = family.dequantize_tensor(name, _load(source, names), view)
            with Copier({}, lambda _: None) as copier:
                write_safetensors(file, {name: InMemory(tensor)}, copier)
            parts[name] = Stored(file, read_header(file).tensors[name])
        yield parts
    finally:
        for file in scratch:
            file.unlink(missing_ok=True)


def _load(source: SourceCheckpoint, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        with safe_open(source.tensors[name][0], framework="pt", device="cpu") as handle:
            tensors[name] = handle.get_tensor(name)
    return tensors
