"""Opening files of an untrusted checkpoint: regular files, inside their folder, of a bounded size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final

from anyblock.checkpoint.json_io import shown
from anyblock.errors import AnyBlockError, CheckpointError

_MAX_NAME: Final = 255
_MAX_DEPTH: Final = 16
_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def plain_directory(path: str | os.PathLike[str], *, error: type[AnyBlockError] = CheckpointError) -> Path:
    """Return `path` as a `Path` after checking that it is a directory.

    Raises:
        CheckpointError: it is missing or is something else (or the class given as `error`).
    """
    folder = Path(path)
    if not folder.exists():
        raise error(f"{folder} does not exist", expected="the directory of a checkpoint")
    if not folder.is_dir():
        raise error(
            f"{folder} is not a directory",
            expected="the directory of a checkpoint",
            hint=gguf_hint(folder.parent, [folder.name]),
        )
    return folder


def gguf_hint(folder: Path, names: Iterable[str]) -> str:
    """Return what to do where a GGUF file in a folder stands in the place of a model; "" where none of these names is one's."""
    found = next((name for name in names if name.lower().endswith(".gguf")), "")
    missing = "" if find_spec("anyblock_gguf") else "python -m pip install anyblock-gguf; then "
    return found and f"{missing}`anyblock from-gguf {folder / found} FOLDER` makes a checkpoint of it"


def inside(folder: Path, relative: str, *, named_by: str = "") -> Path:
    """Return the path of a file below `folder` that really is there.

    A symbolic link may only lead to a place inside the folder, to the file of the same name in another model's folder (one with
    a `config.json`), or into the `blobs/` of a cache of huggingface_hub; from a folder of that cache
    (`<cache>/models--<repo>/snapshots/<revision>/`), only into those of its repository or of the whole cache.

    Args:
        folder: the checkpoint's directory.
        relative: the file's name as some index gives it, with `/` between parts.
        named_by: the file that names it, for the error.

    Raises:
        CheckpointError: the name is absolute, has `..`, or leads outside through a link.
    """
    origin = f" (named by {named_by})" if named_by else ""
    if not _is_tame(relative):
        raise CheckpointError(
            f"{folder}: {shown(relative)}{origin} is not a file of this folder", expected="a relative path without `..`"
        )
    path = folder / relative
    real, root = _real(path), _real(folder)
    if any(real.is_relative_to(place) for place in (root, *_stores(root, path, real))):
        return path
    raise CheckpointError(
        f"{path}{origin} leads outside of its folder, to {real}",
        expected="a file in the folder, or a link to the file of that name in another model's folder, or into the blobs of a "
        "huggingface_hub cache",
        hint="replace the link by a copy of the file",
    )


def _is_tame(relative: str) -> bool:
    parts = PurePosixPath(relative).parts
    short = all(len(os.fsencode(part)) <= _MAX_NAME for part in parts) and len(parts) <= _MAX_DEPTH
    return bool(parts) and short and not relative.startswith("/") and not {"..", "\\", "\0"} & {*parts, *relative}


def _stores(root: Path, path: Path, real: Path) -> Iterator[Path]:
    """Yield the folders outside of the checkpoint `root` into which its links may lead, as `path` does to `real`."""
    snapshots, repository = root.parent, root.parent.parent
    if snapshots.name != "snapshots":
        if path.name == real.name:
            yield from (
                place for place in real.parents[:2] if (place / "config.json").is_file()
            )  # itself, or of a subblock
        # `--local-dir` of older versions of huggingface_hub made links into the cache, and people still do.
        store = next((place for place in real.parents if place.name == "blobs"), root)
        if store.parent.name.startswith("models--") or any(store.parent.glob("models--*/snapshots")):
            yield store
        return
    yield repository / "blobs"
    if repository.name.startswith("models--"):
        yield repository.parent / "blobs"


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be resolved: {error.strerror}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an error that names what was being read."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


@contextmanager
def open_regular(path: Path, *, error: type[AnyBlockError] = CheckpointError) -> Iterator[int]:
    """Open a regular file for reading and yield its descriptor; a pipe or a device is refused and never waited for.

    Raises:
        CheckpointError: it is missing, unreadable, not a regular file or the pointer that git-lfs leaves in place of one (or
            the class given as `error`).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist") from cause
    except OSError as cause:
        raise error(f"{path} cannot be opened: {cause.strerror}") from cause
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise error(f"{path} is not a regular file", expected="a file, not a directory, pipe or device")
        if os.pread(descriptor, len(_POINTER), 0) == _POINTER:
            raise error(
                f"{path} is a git-lfs pointer, which stands for a file that was not fetched",
                expected="the file itself",
                hint=f"run `git lfs install && git lfs pull` in {path.parent}, or download the model again",
            )
        yield descriptor
    finally:
        os.close(descriptor)


def read_exactly(
    descriptor: int, length: int, offset: int, path: Path, *, error: type[AnyBlockError] = CheckpointError
) -> bytes:
    """Read `length` bytes at `offset`.

    Raises:
        CheckpointError: the file ends before (or the class given as `error`).
    """
    parts: list[bytes] = []
    while length:
        part = os.pread(descriptor, min(length, 1 << 30), offset)
        if not part:
            raise error(f"{path} ends at byte {offset}", expected=f"{length} more bytes")
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


def read_bounded(path: Path, limit: int, *, error: type[AnyBlockError] = CheckpointError) -> bytes:
    """Read a whole regular file of at most `limit` bytes.

    Raises:
        CheckpointError: it is larger, or `open_regular` refuses it (or the class given as `error`).
    """
    with open_regular(path, error=error) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise error(f"{path} has {size:,} bytes", expected=f"at most {limit:,}")
        return read_exactly(descriptor, size, 0, path, error=error)
