"""Tensors and figures of one layer, kept in a file so that an interrupted stage continues after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anyblock.checkpoint.atomic import write_tensors_atomic
from anyblock.checkpoint.tensor_files import TensorFiles
from anyblock.modeling.finite import all_finite


def load_layer(folder: Path | None, index: int) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]] | None:
    """Return the tensors by checkpoint name and the lines that `save_layer` kept.

    None when the layer is not finished; a file with numbers that are not finite counts as none.
    """
    from safetensors import safe_open

    path = None if folder is None else folder / f"{index}.safetensors"
    if path is None or not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        lines: list[dict[str, Any]] = json.loads(file.metadata()["lines"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return (tensors, lines) if all_finite(tensors.values()) else None


def save_layer(
    folder: Path | None, index: int, tensors: Mapping[str, torch.Tensor], lines: list[dict[str, Any]]
) -> None:
    """Keep a finished layer; nothing when there is no folder."""
    if folder is None:
        return
    folder.mkdir(exist_ok=True)
    write_tensors_atomic(folder / f"{index}.safetensors", tensors, {"lines": json.dumps(lines)})


def layer_files(folder: Path) -> TensorFiles:
    """Return the tensors of all finished layers, mapped from their files."""
    return TensorFiles(sorted(folder.glob("*.safetensors")))
