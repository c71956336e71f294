"""Computing the tensors that a checkpoint stores in another form, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anyblock.checkpoint.header import read_header
from anyblock.checkpoint.safetensors_writer import InMemory, Stored, write_safetensors
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.tempfiles import temporary_name
from anyblock.checkpoint.transfer import Copier

if TYPE_CHECKING:
    import torch

    from anyblock.conversion.plan import Compute


@contextmanager
def compute_parts(
    compute: Compute, computed: Mapping[str, tuple[str, ...]], source: SourceCheckpoint, folder: Path
) -> Iterator[dict[str, Stored]]:
    """Compute tensors and yield them as parts that are stored in scratch files, which go at the end.

    A file's header states the sizes of all its tensors, and those are known only when the last one is computed. The
    scratch files keep memory at one tensor with its sources.

    Args:
        compute: see `ConversionPlan.compute`.
        computed: `{name: source tensors}`.
        source: where the source tensors are.
        folder: an existing directory for the scratch files.

    Raises:
        CheckpointError: a source cannot be read.
    """
    scratch: list[Path] = []
    parts: dict[str, Stored] = {}
    loaded: dict[str, torch.Tensor] = {}
    try:
        for name, names in computed.items():
            file = folder / temporary_name("computed")
            scratch.append(file)
            if loaded.keys() != set(names):  # several may be parts of one
                loaded = source.load(names)
            tensor = compute(name, loaded)
            with Copier({}, lambda _: None) as copier:
                write_safetensors(file, {name: InMemory(tensor)}, copier)
            parts[name] = Stored(file, read_header(file).tensors[name])
        yield parts
    finally:
        for file in scratch:
            file.unlink(missing_ok=True)
