"""A checkpoint of some dozens of megabytes that takes no time to write: its tensors are holes in a file."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any, Final

from anyblock.checkpoint.source_checkpoint import SourceCheckpoint

from anyblock_conformance.subject import Subject

EXTRA: Final = 40 << 20
"""Bytes to which the input embedding and an untied head are enlarged, each."""


def write_large(subject: Subject, folder: Path) -> int:
    """Write a checkpoint of the same model with a much larger vocabulary, and return its size in bytes.

    Every weight is zero.
    """
    folder.mkdir()
    old = int(subject.text_config.vocab_size)
    outer = (subject.family.input_embedding_name(), subject.family.output_embedding_name())
    tensors = {name: entry for name, (_, entry) in SourceCheckpoint.open(subject.source).tensors.items()}
    paths = {name: (subject.module_names.get(name) or "").rpartition(".")[0] for name in tensors}
    by_word = [name for name, entry in tensors.items() if paths[name] in outer and entry.shape[0] == old]
    vocabulary = EXTRA * old // max((tensors[name].nbytes for name in by_word), default=EXTRA)
    entries: dict[str, Any] = {}
    position = 0
    for name, entry in tensors.items():
        sizes, nbytes = list(entry.shape), entry.nbytes
        if name in by_word:
            sizes[0] = vocabulary
            nbytes = nbytes // old * vocabulary
        entries[name] = {"dtype": entry.dtype, "shape": sizes, "data_offsets": [position, position + nbytes]}
        position += nbytes
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + position)
    config = _with_vocabulary(subject.raw_config, old, vocabulary)
    (folder / "config.json").write_text(json.dumps(config))
    for path in subject.source.glob("*.py"):
        shutil.copy(path, folder)
    return position


def _with_vocabulary(data: dict[str, Any], old: int, new: int) -> dict[str, Any]:
    return {
        key: _with_vocabulary(value, old, new)
        if isinstance(value, dict)
        else new
        if key == "vocab_size" and value == old
        else value
        for key, value in data.items()
    }
