"""The weights of a Hugging Face directory: one safetensors file, shards with an index, or a subblock checkpoint."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.checkpoint.files import gguf_hint, inside, plain_directory
from anyblock.checkpoint.header import Header, TensorEntry, read_header
from anyblock.checkpoint.index import INDEX, SINGLE, check_against_index, read_index
from anyblock.checkpoint.json_io import shown
from anyblock.errors import CheckpointError

if TYPE_CHECKING:
    import torch

PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Suffixes of weights that are pickles, which are never loaded."""
FOREIGN: Final = (*PICKLES, ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz", ".ot", ".nemo")
"""Suffixes of weights in formats that `convert` does not read."""


@dataclass(frozen=True)
class SourceCheckpoint:
    """The weights of a Hugging Face directory, checked; no tensor is loaded.

    Attributes:
        path: the directory.
        tensors: `{name: (file, entry)}`, file by file in the order of the bytes.
        headers: `{file: header}`.
    """

    path: Path
    tensors: Mapping[str, tuple[Path, TensorEntry]]
    headers: Mapping[Path, Header]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SourceCheckpoint:
        """Read the headers of all weight files of a directory.

        Raises:
            CheckpointError: no weights in safetensors format, a damaged file, a tensor in two files, or an index
                that does not agree with the files or leads outside of the directory.
        """
        folder = plain_directory(path)
        files = _weight_files(folder)
        headers: dict[Path, Header] = {}
        tensors: dict[str, tuple[Path, TensorEntry]] = {}
        for file, listed in files.items():
            header = read_header(file)
            headers[file] = header
            for name, entry in header.tensors.items():
                if name in tensors:
                    raise CheckpointError(
                        f"tensor {shown(name)} is in {tensors[name][0]} and in {file}", expected="every tensor once"
                    )
                tensors[name] = (file, entry)
            if listed is not None:
                check_against_index(file, header.tensors, listed, folder / INDEX)
        if not tensors:
            raise CheckpointError(f"{folder} holds no tensors", expected="the weights of a model")
        return cls(folder, tensors, headers)

    def load(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Read tensors, by their names."""
        from safetensors import safe_open

        tensors: dict[str, torch.Tensor] = {}
        for name in names:
            with safe_open(self.tensors[name][0], framework="pt", device="cpu") as handle:
                tensors[name] = handle.get_tensor(name)
        return tensors

    @property
    def total_size(self) -> int:
        """The sum of all tensors in bytes."""
        return sum(entry.nbytes for _, entry in self.tensors.values())


def _weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """Return `{file: tensors that the index lists for it}`; None stands for a file that needs no index."""
    weight_map = read_index(folder)
    if weight_map is None:
        if os.path.lexists(folder / SINGLE):
            return {inside(folder, SINGLE): None}
        raise _no_weights(folder)
    by_file: dict[str, list[str]] = defaultdict(list)
    for name, target in weight_map.items():
        by_file[target].append(name)
    files: dict[Path, list[str] | None] = {}
    for target, listed in sorted(by_file.items()):
        file = inside(folder, target, named_by=INDEX)
        if not file.exists():
            raise CheckpointError(
                f"{file} is missing; {INDEX} names it for {len(listed)} tensors", hint="download it again"
            )
        files[file] = listed
    return files


def _no_weights(folder: Path) -> CheckpointError:
    names = sorted(entry.name for entry in folder.iterdir())
    foreign = [name for name in names if name.endswith(FOREIGN)]
    loose = [name for name in names if name.endswith(".safetensors")]
    expected = f"{SINGLE}, or shards with {INDEX}"
    if any(name.endswith(PICKLES) for name in foreign):
        return CheckpointError(
            f"{folder} has its weights in {', '.join(foreign[:4])}, which are pickles and are not loaded",
            expected=expected,
            hint="if you trust them, convert them once:\n"
            '  python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}', dtype='auto').save_pretrained('{folder}-safetensors')\"\n"
            "and copy the tokenizer files next to the result",
        )
    if foreign:
        text = f"{folder} has its weights in {', '.join(foreign[:4])}"
        return CheckpointError(text, expected=expected, hint=gguf_hint(folder, foreign))
    if loose:
        return CheckpointError(f"{folder} has {', '.join(loose[:4])} and no {INDEX}", expected=expected)
    return CheckpointError(f"{folder} has no weights", expected=expected)
