"""Reading `model.safetensors.index.json`: which file holds which tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from anyblock.checkpoint.files import read_bounded
from anyblock.checkpoint.jsonio import json_bytes
from anyblock.checkpoint.parse import parse_object, shown, unique
from anyblock.errors import CheckpointError

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
MAX_INDEX: Final = 200_000_000
"""Largest index in bytes; the largest known checkpoints have one of about 10 MB."""


def read_weight_map(file: Path) -> dict[str, str]:
    """Return `{tensor: file}` of an index.

    Raises:
        CheckpointError: not such an index, a tensor listed twice, or a file that is not a safetensors file.
    """
    where = str(file)
    data = parse_object(read_bounded(file, MAX_INDEX), where, on_object=lambda pairs: unique(pairs, where))
    weight_map = data.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{file} has no weight_map", expected='"weight_map": {tensor: file}')
    for name, target in weight_map.items():
        if not isinstance(target, str) or not target.endswith(".safetensors"):
            raise CheckpointError(
                f"{file}: tensor {shown(name)} is said to be in {shown(target)}",
                expected="a .safetensors file; pickles and other formats are not read",
            )
    return weight_map


def index_bytes(weight_map: Mapping[str, str], total_size: int, source: str | None = None) -> bytes:
    """Return the content of an index.

    Args:
        weight_map: `{tensor: file}`.
        total_size: the sum of all tensors in bytes.
        source: where the model comes from; None leaves it out.
    """
    metadata = {"total_size": total_size} if source is None else {"total_size": total_size, "source": source}
    return json_bytes({"metadata": metadata, "weight_map": dict(weight_map)})


def check_against_index(file: Path, found: Iterable[str], listed: Iterable[str], index: Path) -> None:
    """Check that a file holds exactly the tensors that the index lists for it.

    Raises:
        CheckpointError: naming the first tensors that are missing or not listed, and how many there are.
    """
    here, wanted = set(found), set(listed)
    if missing := sorted(wanted - here):
        raise CheckpointError(f"{file} lacks {some(missing)}", expected=f"every tensor that {index.name} lists for it")
    if extra := sorted(here - wanted):
        raise CheckpointError(f"{file} holds {some(extra)}", expected=f"only tensors that {index.name} lists for it")


def some(names: list[str], limit: int = 10) -> str:
    """Return `3 tensors: 'a', 'b', 'c'`, shortened when there are many."""
    listed = ", ".join(shown(name) for name in names[:limit])
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return f"{len(names):,} tensor{'s' if len(names) != 1 else ''}: {listed}{rest}"
