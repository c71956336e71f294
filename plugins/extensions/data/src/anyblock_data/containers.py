"""What text comes in besides plain files: compressed, and in columns of a table."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from anyblock.errors import InputError

from anyblock_data.records import Records

_TEXTS: Final = (".txt", ".md", ".text", ".jsonl", ".ndjson", ".json")
SUFFIXES: Final = (*_TEXTS, ".csv", ".tsv", ".parquet", ".arrow", ".feather")
"""How names of files end that are read where a folder is given, also with the suffix of a compressed file after it."""
_PACKED: Final = (".gz", ".bz2", ".xz", ".zst")
_ERRORS: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def _unzstd(data: bytes) -> bytes:
    import zstandard

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
        InputError: they break off or are damaged.
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
        InputError: the table breaks off or is damaged.
    """
    if data[:4] == data[-4:] == b"PAR1":
        name = "Parquet"
    elif data[:6] == b"ARROW1" or (data[:4] == data[-4:] == b"FEA1"):
        name = "Arrow"
    elif data[:4] == b"\xff\xff\xff\xff":
        name = "Arrow stream"
    else:
        return None
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

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
