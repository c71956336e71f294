"""Which files other than the weights go along with a checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from anyblock.checkpoint.config import CONFIG
from anyblock.checkpoint.files import inside, open_regular
from anyblock.checkpoint.groups import FOLDER
from anyblock.checkpoint.source_checkpoint import FOREIGN
from anyblock.checkpoint.transfer import ByteRange, Copier
from anyblock.errors import CheckpointError

_WEIGHTS: Final = (
    *FOREIGN,
    ".safetensors",
    ".index.json",
    ".onnx_data",
    ".pickle",
    ".joblib",
    ".npy",
    ".tflite",
    ".engine",
    ".mlmodel",
)
_FILES: Final = re.compile(r"\..*|consolidated.*|(hf_)?quant(ize)?_config\.json", re.IGNORECASE)
_FOLDERS: Final = re.compile(
    r"\..*|__pycache__|original|onnx|openvino|coreml|gguf|metal|runs|checkpoint-\d+", re.IGNORECASE
)


def companions(folder: Path) -> dict[str, Path]:
    """Return `{relative name: file}` of everything that is not weights: tokenizer, generation config, chat
    templates, custom code ...

    Left out are weights of any format, what says how they are quantised, what is hidden, `config.json` (which is written anew),
    and folders that hold the model in other formats.

    Raises:
        CheckpointError: one of them is not a regular file, leads outside of the folder, or was not fetched by git-lfs.
    """
    return {str(path.relative_to(folder)): path for path in sorted(_walk(folder, folder))}


def _walk(root: Path, folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.is_dir():
            if not _FOLDERS.fullmatch(entry.name) and path != root / FOLDER:
                inside(root, str(path.relative_to(root)))
                if entry.is_symlink():
                    raise CheckpointError(f"{path} is a link to a directory", expected="files and directories")
                yield from _walk(root, path)
        elif not _FILES.fullmatch(entry.name) and not entry.name.endswith(_WEIGHTS) and path != root / CONFIG:
            inside(root, str(path.relative_to(root)))
            if not path.is_file():
                raise CheckpointError(f"{path} is not a regular file", expected="files and directories")
            with open_regular(path):
                yield path


def sizes(files: Mapping[str, Path]) -> int:
    """Return the sum of the files' sizes in bytes."""
    return sum(path.stat().st_size for path in files.values())


def carry(files: Mapping[str, Path], target: Path, copier: Copier) -> None:
    """Copy the files to the same relative names below `target`.

    Raises:
        CheckpointError: a file was changed meanwhile.
        OSError: the target cannot be written.
    """
    for name, path in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            copier.copy([ByteRange(path, 0, path.stat().st_size)], descriptor, 0)
        finally:
            os.close(descriptor)
