"""Tensors and figures of one layer, kept in a file so that an interrupted stage continues after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anyblock.checkpoint.atomic import write_tensors_atomic
from anyblock.checkpoint.tensor_files import TensorFiles
from anyblock.contract.adaptation import LayerStore
from anyblock.modeling.finite import all_finite


class FolderStore(LayerStore):
    """Finished layers, one file each.

    Args:
        folder: where layers are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def load(self, index: int) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]] | None:
        """See `LayerStore.load`; a file with numbers that are not finite counts as none."""
        from safetensors import safe_open

        path = None if self._folder is None else self._folder / f"{index}.safetensors"
        if path is None or not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            lines: list[dict[str, Any]] = json.loads(file.metadata()["lines"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return (tensors, lines) if all_finite(tensors.values()) else None

    def save(self, index: int, tensors: Mapping[str, torch.Tensor], lines: list[dict[str, Any]]) -> None:
        """See `LayerStore.save`."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_tensors_atomic(self._folder / f"{index}.safetensors", tensors, {"lines": json.dumps(lines)})

    def tensors(self) -> TensorFiles:
        """See `LayerStore.tensors`."""
        return TensorFiles(sorted(self._folder.glob("*.safetensors")) if self._folder is not None else [])
