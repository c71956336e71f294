"""A hash of a checkpoint's content that is computed once for each state of a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.files import open_regular, read_bounded
from anyblock.checkpoint.header import Stamp
from anyblock.checkpoint.parse import parse_object
from anyblock.errors import CheckpointError

_MEMORY: dict[tuple[str, Stamp], str] = {}
_MAX_CACHE = 64_000_000


def file_digest(path: Path) -> str:
    """Return the BLAKE2b hash (hex, 32 bytes) of a file's content.

    It is remembered for this process by path, size, inode and times of change.
    """
    with open_regular(path) as descriptor:
        stamp = Stamp.of(os.fstat(descriptor))
        key = (str(path), stamp)
        if key not in _MEMORY:
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                _MEMORY[key] = hashlib.file_digest(stream, _blake2b).hexdigest()
        return _MEMORY[key]


def content_fingerprint(document: Any, files: Mapping[str, Path], cache: Path | None = None) -> str:
    """Return the BLAKE2b hash (hex, 32 bytes) of a JSON document and of files with their names.

    Args:
        document: hashed in a form in which the order of keys and the layout of the text do not matter.
        files: `{name: file}`.
        cache: a JSON file that remembers the files' hashes for other processes; a damaged one is ignored.
    """
    known = _read_cache(cache) if cache is not None else {}
    before = len(_MEMORY)
    for path in files.values():
        stamp = Stamp.of(path.stat())
        if (digest := known.get(_cache_key(path, stamp))) is not None:
            _MEMORY.setdefault((str(path), stamp), digest)
    total = _blake2b(json.dumps(document, sort_keys=True).encode())
    digests = {name: file_digest(path) for name, path in sorted(files.items())}
    for name, digest in digests.items():
        total.update(f"\n{name} {digest}".encode())
    if cache is not None and len(_MEMORY) > before:
        fresh = {_cache_key(path, Stamp.of(path.stat())): digests[name] for name, path in files.items()}
        write_json_atomic(cache, {**known, **fresh})
    return str(total.hexdigest())


def _blake2b(data: bytes = b"") -> Any:
    return hashlib.blake2b(data, digest_size=32)


def _cache_key(path: Path, stamp: Stamp) -> str:
    return ":".join(
        map(str, (os.path.realpath(path), stamp.device, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns))
    )


def _read_cache(cache: Path) -> dict[str, str]:
    with suppress(CheckpointError):
        data = parse_object(read_bounded(cache, _MAX_CACHE), str(cache))
        return {key: value for key, value in data.items() if isinstance(value, str) and len(value) == 64}
    return {}
