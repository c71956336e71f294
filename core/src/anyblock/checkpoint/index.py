"""`model.safetensors.index.json`: which file holds which tensor, and whether that still counts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from anyblock.checkpoint.config import CONFIG, MAX_CONFIG
from anyblock.checkpoint.files import inside, read_bounded
from anyblock.checkpoint.groups import FOLDER
from anyblock.checkpoint.json_io import json_bytes, parse_object, shown, unique
from anyblock.errors import CheckpointError

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
MAX_INDEX: Final = 200_000_000
"""Largest index in bytes; the largest known checkpoints have one of about 10 MB."""
_DIGEST: Final = "config_sha256"
"""Metadata of AnyBlock's own indices: the digest of the `config.json` that was written with them."""
_SAVED: Final = re.compile(r"model([.-].+)?\.safetensors")
"""What `save_pretrained` calls its files: one file, shards, or those of a variant."""


def read_index(folder: Path) -> dict[str, str] | None:
    """Return `{tensor: file}` of a directory's index; None where no index says which weights count.

    `save_pretrained` into a child's own directory leaves the child's files and their index in place. What it wrote counts
    if it is one file, and the index can be seen to be older: `config.json`, which every save replaces, is no longer the
    one that AnyBlock wrote with the index, and is sorted, as saves leave it; or none of the index's files is left.

    Raises:
        CheckpointError: the index is damaged, or there are two models and nothing says which one is newer.
    """
    if not os.path.lexists(folder / INDEX):
        return None
    weight_map, digest = _read(inside(folder, INDEX))
    files = set(weight_map.values())
    own = digest is not None or any(file.startswith(f"{FOLDER}/") for file in files)
    others = [
        name
        for name in sorted(entry.name for entry in folder.iterdir())
        if name not in files and (name == SINGLE or (own and _SAVED.fullmatch(name)))
    ]
    if not others:
        return weight_map
    if others == [SINGLE] and (
        (digest is not None and _is_saved(inside(folder, CONFIG), digest))
        or not any(os.path.lexists(folder / file) for file in files)
    ):
        return None
    listed = FOLDER if any(file.startswith(f"{FOLDER}/") for file in files) else "the files that it names"
    raise CheckpointError(
        f"{folder} holds two models: {INDEX} does not mention {', '.join(others[:4])}",
        expected="one set of weights",
        hint=f"delete {INDEX} and {listed}, or {', '.join(others[:4])}: whichever is older, or is incomplete",
    )


def _read(file: Path) -> tuple[dict[str, str], str | None]:
    where = str(file)
    data = parse_object(read_bounded(file, MAX_INDEX), where, on_object=lambda pairs: unique(pairs, where))
    weight_map, metadata = data.get("weight_map"), data.get("metadata")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{file} has no weight_map", expected='"weight_map": {tensor: file}')
    for name, target in weight_map.items():
        if not isinstance(target, str) or not target.endswith(".safetensors"):
            raise CheckpointError(
                f"{file}: tensor {shown(name)} is said to be in {shown(target)}",
                expected="a .safetensors file; pickles and other formats are not read",
            )
    digest = metadata.get(_DIGEST) if isinstance(metadata, dict) else None
    return weight_map, digest if isinstance(digest, str) else None


def _is_saved(config: Path, digest: str) -> bool:
    """Return whether `save_pretrained` wrote this `config.json` after the one with that digest."""
    content = read_bounded(config, MAX_CONFIG)
    keys = list(parse_object(content, str(config)))
    return _digest(content) != digest and keys == sorted(keys)


def _digest(config: bytes) -> str:
    return hashlib.sha256(config).hexdigest()


def index_bytes(weight_map: Mapping[str, str], total_size: int, config: bytes, source: str | None = None) -> bytes:
    """Return the content of an index.

    Args:
        weight_map: `{tensor: file}`.
        total_size: the sum of all tensors in bytes.
        config: the content of the `config.json` next to it.
        source: where the model comes from; None leaves it out.
    """
    metadata = {"total_size": total_size, _DIGEST: _digest(config)} | ({} if source is None else {"source": source})
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
