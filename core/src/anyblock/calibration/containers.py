"""What text comes in besides plain files: compressed, in columns of a table, in folders, in a data set on the hub."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from anyblock.calibration.records import Records
from anyblock.errors import InputError

HUB: Final = "hf://"
_TEXTS: Final = (".txt", ".md", ".text", ".jsonl", ".ndjson", ".json")
SUFFIXES: Final = (*_TEXTS, ".csv", ".tsv", ".parquet", ".arrow", ".feather")
"""How names of files end that are read where a folder is given, also with the suffix of a compressed file after it."""
_PACKED: Final = (".gz", ".bz2", ".xz", ".zst")
_OF_A_DATA_SET: Final = ("dataset_info.json", "state.json", "dataset_dict.json")
_ERRORS: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def _unzstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise _missing("zstandard", "a file that is compressed with zstd") from error
    found = bytearray()
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            found += frame.decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        if not frame.eof:
            raise EOFError("a frame has no end")
        data = frame.unused_data
    return bytes(found)


_UNPACK: Final[tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...]] = (
    (b"\x1f\x8b", "gzip", gzip.decompress),
    (b"BZh", "bzip2", bz2.decompress),
    (b"\xfd7zXZ\x00", "xz", lzma.decompress),
    (b"\x28\xb5\x2f\xfd", "zstd", _unzstd),
)
"""First bytes, name and function of what is unpacked."""


def suffix_of(path: Path) -> str:
    """Return how a file's name ends, in lower case, without the suffix of a compressed file."""
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if suffix in _PACKED else suffix


def unpacked(data: bytes, path: Path) -> bytes:
    """Return what is compressed in bytes; other bytes come back as they are.

    Raises:
        InputError: they break off or are damaged, or a library is missing.
    """
    for magic, name, function in _UNPACK:
        if data.startswith(magic):
            if name == "bzip2" and data[4:10] not in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
                continue
            try:
                return function(data)
            except _ERRORS as error:
                raise InputError(
                    f"{path} is compressed with {name}, and breaks off or is damaged: {error}",
                    expected="a whole file",
                    hint="get it again from where it comes from",
                ) from error
    return data


def columns(data: bytes, path: Path) -> Records | None:
    """Return the rows of a Parquet or Arrow table; None of other bytes.

    Raises:
        InputError: the table breaks off or is damaged, or pyarrow is missing.
    """
    if data[:4] == data[-4:] == b"PAR1":
        name = "Parquet"
    elif data[:6] == b"ARROW1" or (data[:4] == data[-4:] == b"FEA1"):
        name = "Arrow"
    elif data[:4] == b"\xff\xff\xff\xff":
        name = "Arrow stream"
    else:
        return None
    try:
        import pyarrow
        import pyarrow.feather
        import pyarrow.parquet
    except ImportError as error:
        raise _missing("pyarrow", f"a table ({name})") from error
    source = pyarrow.BufferReader(data)
    try:
        if name == "Parquet":
            table = pyarrow.parquet.read_table(source)
        elif name == "Arrow":
            table = pyarrow.feather.read_table(source)
        else:
            table = pyarrow.ipc.open_stream(source).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} is a table ({name}) that breaks off or is damaged: {error}",
            expected="a whole file",
            hint="get it again from where it comes from",
        ) from error
    return Records(str(path), name, "row", enumerate(_rows(table), 1))


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches():
        yield from batch.to_pylist()


def text_files(folder: Path) -> tuple[list[Path], int]:
    """Return the files below a folder that are read, by name, and how many others there are.

    Of a data set that `datasets` saved these are its tables, of one with several splits those of `train` where it has one.
    """
    if (folder / "dataset_dict.json").is_file() and (folder / "train").is_dir():
        folder = folder / "train"
    every = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    saved = any(path.name in _OF_A_DATA_SET for path in every)
    found = [path for path in every if (path.suffix == ".arrow" if saved else suffix_of(path) in SUFFIXES)]
    return found, len(every) - len(found)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def fetched(address: str) -> Path:
    """Return the place on this machine of a file or folder of a data set on the hub; it is downloaded if need be.

    Args:
        address: `hf://datasets/OWNER/NAME/PATH`; without a path, the whole data set.

    Raises:
        InputError: there is no such data set or file, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    parts = address.removeprefix(HUB).removeprefix("datasets/").strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise InputError(f"{address} names no data set", expected=f"{HUB}datasets/OWNER/NAME or .../NAME/PATH")
    name, inside = "/".join(parts[:2]), "/".join(parts[2:])
    wanted = [inside, f"{inside}/*"] if inside else None
    try:
        root = Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no data set {name}", expected="the name of one, or a login that may read it"
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{address} cannot be downloaded: {error}", expected="a data set that can be reached"
        ) from error
    found = root / inside
    if not found.exists():
        raise InputError(f"the data set {name} has no file {inside}", expected="a path inside the data set")
    return found


def _missing(package: str, what: str) -> InputError:
    return InputError(f"{what} needs the package {package}", hint=f"python -m pip install {package}")
