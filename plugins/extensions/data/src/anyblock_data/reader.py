"""The reader of every format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from anyblock.contract.text_reader import Chat, Documents, TextReader
from anyblock.errors import InputError

from anyblock_data.containers import SUFFIXES, columns, suffix_of, unpacked
from anyblock_data.file_format import decoded_text
from anyblock_data.records import Records
from anyblock_data.structured import holds_json_lines, json_lines, read_records

_OF_A_DATA_SET: Final = {"dataset_info.json", "state.json", "dataset_dict.json"}


class DataReader(TextReader):
    """Recognises a file by its content: text, JSON lines, JSON, CSV and its like, Parquet and Arrow, each also compressed."""

    summary: ClassVar[str] = "Text, JSON, CSV and its like, Parquet and Arrow tables, each also compressed."
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def read(self, data: bytes, path: Path, *, field: str | None, chat: Chat | None) -> Documents:
        """See `TextReader.read`; what it cannot read is refused with a command that makes text of it."""
        data = unpacked(data, path)
        found = columns(data, path) or _records(decoded_text(data, path), path)
        if isinstance(found, Records):
            return found.documents(field, chat)
        if field is not None:
            raise InputError(
                f"{path} is text without fields", expected="JSON or a table", hint=f"leave out the field {field!r}"
            )
        return Documents([found])

    def files(self, every: Sequence[Path]) -> list[Path]:
        """See `TextReader.files`: of a data set that `datasets` saved its tables, and of several splits those of `train`."""
        saved = [path for path in every if path.suffix == ".arrow"]
        if not any(path.name in _OF_A_DATA_SET for path in every):
            return [path for path in every if suffix_of(path) in SUFFIXES]
        roots = [path.parent for path in every if path.name == "dataset_dict.json"]
        train = [path for path in saved if any((root / "train") in path.parents for root in roots)]
        return train or saved


def _records(content: str, path: Path) -> Records | str:
    """Return the records of a text that has some, and the text itself otherwise."""
    named = suffix_of(path) in {".jsonl", ".ndjson"}
    if holds_json_lines(content, named=named):
        return Records(str(path), "JSON lines", "line", json_lines(content, path))
    found = read_records(content, path)
    if found is None and named and content.strip():
        return Records(str(path), "JSON lines", "line", json_lines(content, path))
    return content if found is None else found
