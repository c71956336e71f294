"""A hash of a checkpoint's content that is computed once for each state of a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.files import open_regular, read_bounded
from anyblock.checkpoint.header import Stamp
from anyblock.checkpoint.json_io import parse_object
from anyblock.errors import CheckpointError

_MEMORY: dict[str, str] = {}
_MAX_CACHE = 64_000_000


def content_fingerprint(document: Any, files: Mapping[str, Path], cache: Path | None = None) -> str:
    """Return the BLAKE2b hash (hex, 32 bytes) of a JSON document and of files with their names.

    A file's hash is remembered by path, device, inode, size and times of change: in this process, and in `cache`.

    Args:
        document: hashed in a form in which the order of keys and the layout of the text do not matter.
        files: `{name: file}`.
        cache: a JSON file that remembers the files' hashes for other processes; a damaged one is ignored.

    Raises:
        CheckpointError: a file cannot be read.
    """
    known = _read_cache(cache)
    used: dict[str, str] = {}
    total = _blake2b(json.dumps(document, sort_keys=True).encode())
    for name, path in sorted(files.items()):
        key, digest = _file_digest(path, known)
        used[key] = digest
        total.update(f"\n{name} {digest}".encode())
    if cache is not None and not used.keys() <= known.keys():
        write_json_atomic(cache, {**known, **used})
    return str(total.hexdigest())


def _file_digest(path: Path, known: Mapping[str, str]) -> tuple[str, str]:
    """Return the key under which a file's hash is remembered, and the hash."""
    with open_regular(path) as descriptor:
        stamp = Stamp.of(os.fstat(descriptor))
        state = (stamp.device, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns)
        key = ":".join([os.path.realpath(path), *map(str, state)])
        digest = _MEMORY.get(key) or known.get(key)
        if digest is None:
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                digest = hashlib.file_digest(stream, _blake2b).hexdigest()
        _MEMORY[key] = digest
        return key, digest


def _blake2b(data: bytes = b"") -> Any:
    return hashlib.blake2b(data, digest_size=32)


def _read_cache(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    try:
        data = parse_object(read_bounded(cache, _MAX_CACHE), str(cache))
    except CheckpointError:
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str) and len(value) == 64}
