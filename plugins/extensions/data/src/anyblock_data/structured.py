"""Tell by its content whether a text is a table, JSON or markup, and read its records."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from anyblock.errors import InputError

from anyblock_data.containers import suffix_of
from anyblock_data.file_format import refusal
from anyblock_data.records import CHATS, Records, is_usual

_RECORDS: Final = 1000
_FIRST_LINES: Final = 10
_FEW_LINES: Final = 100
_CELL: Final = 2**31 - 1
_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""As files of JSON and tables have them; `str.splitlines` also splits at U+2028 and others, which JSON has within strings."""
_NAMED_TABLES: Final = {".csv", ".tsv", ".tab", ".psv"}
_MARKUP: Final = re.compile(r"\s*(<!doctype html|<html[\s>]|<\?xml\s|<mediawiki[\s>])", re.IGNORECASE)
_HEADING: Final = re.compile(r"\s?[^\W\d][\w.\-/()]*( [\w.\-/()]+){,2}|Unnamed: \d+")
_NUMBER: Final = re.compile(r"\s*[-+]?\d[\d.,:e+-]*\s*")
_IN_A_WORD: Final = r"[!-~]%s(?=[!#-&(-~])"
"""A delimiter as it stands in tables; in prose a space follows it, or a closing quotation mark."""
_TAGS: Final = (
    "take the text out of it with: python -c \"import html,re,sys; t = open(sys.argv[1], encoding='utf-8-sig').read(); "
    "print(html.unescape(re.sub(r'(?is)<(script|style).*?</\\1>|<[^>]*>', ' ', t)))\" @FILE > @NEW"
)


def lines(content: str) -> Iterator[str]:
    """Return the lines of JSON lines or a table, with their ends."""
    return (found.group() for found in _LINE.finditer(content))


def parsed(text: str) -> Any:
    """Return the value of a text of JSON; whole numbers come as floats, since the length of an int is limited.

    Raises:
        ValueError, RecursionError: it is not JSON, or it is too deep.
    """
    return json.loads(text, parse_int=float)


def holds_json_lines(content: str, *, named: bool) -> bool:
    """Return whether a text is JSON lines: an object on its first line and on another of the first ten.

    Args:
        content: the text.
        named: the file's name says so; its first line is enough then, and otherwise an only line has to have a `text`.
    """
    if content.lstrip()[:1] != "{":
        return False
    first, *others = map(_value, _first_lines(content))
    if named or not isinstance(first, dict):
        return isinstance(first, dict)
    return any(isinstance(other, dict) for other in others) if others else isinstance(first.get("text"), str)


def json_lines(content: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number and value of every line that is not empty.

    Raises:
        InputError: one of them is not JSON.
    """
    for number, line in enumerate(lines(content), start=1):
        if not line.strip():
            continue
        try:
            yield number, parsed(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: not JSON ({error})", expected="one JSON object per line"
            ) from error


def read_records(content: str, path: Path) -> Records | None:
    """Return the records of a text that is JSON or a table as a whole; None of any other text.

    Args:
        content: the text.
        path: the file that it is from; one that is named `.csv` or the like is a table where there is doubt.

    Raises:
        InputError: it is HTML or XML, JSON that breaks off or holds no list of records, or a table with rows of several lengths.
    """
    if _MARKUP.match(content):
        raise refusal(path, "is HTML or XML", _TAGS)
    start = content.lstrip()[:1]
    if start == '"' and "\\" in content and all(isinstance(_value(line), str) for line in _first_lines(content)):
        values = [_value(line) for line in lines(content) if line.strip()]
        if all(isinstance(value, str) for value in values):
            return Records(str(path), "JSON", "line", enumerate(values, 1))
        raise _broken_json(path)
    if start in ("[", "{"):
        values, end = _json_values(content)
        if end == "breaks off":
            raise _broken_json(path)
        if end == "whole":
            return _json_records(values, path)
    table = _table(content, named=suffix_of(path) in _NAMED_TABLES)
    if table is None:
        return None
    rows = _rows(content, table.delimiter, quoted=table.quoted, most=None)
    if not rows:
        raise refusal(
            path,
            f"is a table ({table.name}) that breaks off, or whose rows have different lengths",
            "write it again where it was made, with cells in quotes that hold the delimiter",
        )
    return table.records(rows, str(path))


def _json_records(values: list[Any], path: Path) -> Records:
    if len(values) > 1:
        return Records(str(path), "JSON", "record", enumerate(values, 1))
    data = values[0]
    if isinstance(data, dict) and not isinstance(data.get("text"), str):
        lists = {key: value for key, value in data.items() if isinstance(value, list) and value and key not in CHATS}
        data = lists[max(lists, key=lambda name: len(lists[name]))] if lists else [data]
    return Records(str(path), "JSON", "record", enumerate(data if isinstance(data, list) else [data], 1))


def _broken_json(path: Path) -> InputError:
    return refusal(
        path, "is JSON that breaks off or is too deep", "get the whole file, or write it again where it was made"
    )


def _first_lines(content: str) -> Iterator[str]:
    return islice(filter(str.strip, lines(content)), _FIRST_LINES)


def _value(line: str) -> Any:
    try:
        return parsed(line)
    except (ValueError, RecursionError):
        return None


def _json_values(content: str) -> tuple[list[Any], Literal["whole", "breaks off", "other text"]]:
    """Read JSON values one after the other; also return whether they are the whole text, or break off where it ends."""
    decoder, values, place, end = json.JSONDecoder(parse_int=float), list[Any](), 0, len(content.rstrip())
    while (place := _next(content, place)) < end:
        if content[place] not in "[{":
            return values, "other text"
        try:
            value, place = decoder.raw_decode(content, place)
        except json.JSONDecodeError as error:
            at_end = error.msg.startswith("Unterminated string") or error.pos > max(end - 6, place + 1)
            return values, "breaks off" if at_end else "other text"
        except RecursionError:
            return values, "breaks off"
        values.append(value)
    return values, "whole" if any(values) else "other text"


def _next(content: str, place: int) -> int:
    while place < len(content) and content[place] in " \t\r\n,":
        place += 1
    return place


@dataclass(frozen=True)
class _Table:
    """How a table's cells are distinguished, and its records at the beginning, all of the same length."""

    delimiter: str
    quoted: bool
    rows: list[list[str]]

    @property
    def name(self) -> str:
        kind = {",": "CSV", "\t": "TSV"}.get(self.delimiter, f"separated by {self.delimiter!r}")
        return f"{kind}, {len(self.rows[0])} columns" if len(self.rows[0]) > 1 else f"{kind}, 1 column"

    def records(self, rows: list[list[str]], path: str) -> Records:
        """Return all rows of the table: by the names in its heading, or of one without the longest column."""
        if self.has_heading:
            entries = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
            if len(rows[0]) > 1 and "text" not in rows[0]:  # numbers and labels are strings as well
                longest = self._longest(rows[1:])
                columns = [rows[0][longest]] if not is_usual(rows[0]) else rows[0]
                entries = [{name: entry[name] for name in columns} for entry in entries]
            return Records(path, self.name, "row", enumerate(entries, 2))
        longest = self._longest(rows)
        return Records(
            path, f"{self.name}, of which number {longest + 1}", "row", enumerate((r[longest] for r in rows), 1)
        )

    def _longest(self, rows: list[list[str]]) -> int:
        return max(range(len(rows[0])), key=lambda place: sum(len(row[place]) for row in rows)) if rows else 0

    @property
    def has_heading(self) -> bool:
        """The first record names columns, and is unlike most of the others."""
        return _is_heading(self.rows[0]) and sum(map(_is_heading, self.rows[1:])) <= len(self.rows[1:]) / 2

    @property
    def filled(self) -> float:
        """Share of cells that are not empty, in the column in which that is least."""
        return min(sum(bool(cell.strip()) for cell in column) for column in zip(*self.rows, strict=True)) / len(
            self.rows
        )

    @property
    def spaced(self) -> float:
        """Share of cells after the first that begin with a space, as what follows a comma in prose does."""
        later = [cell for row in self.rows for cell in row[1:]]
        return sum(cell.startswith(" ") for cell in later) / len(later)

    @property
    def escaped(self) -> float:
        """Share of records with a cell that has to be quoted."""
        return sum(any(self.delimiter in c or "\n" in c for c in row) for row in self.rows) / len(self.rows)

    @property
    def counted(self) -> bool:
        """Some column holds numbers."""
        columns = list(zip(*self.rows[1:], strict=True))
        return any(all(_NUMBER.fullmatch(cell) for cell in column if cell) and any(column) for column in columns)

    def is_one(self, content: str, *, named: bool) -> bool:
        """Return whether this is a table rather than prose with equally many commas on every line."""
        few = 2 if named or self.has_heading else 5
        if len(self.rows) < few:
            return False
        if len(self.rows[0]) == 1:
            alone = self.delimiter == "," and self.quoted
            one_word = self.has_heading and " " not in self.rows[0][0].strip()
            if one_word:
                return alone and self.escaped > (0 if named else 0.3)
            return alone and self.escaped > 0.9 and '""' in content
        if self.filled < 0.5 and not self.has_heading:
            return False
        if self.delimiter == "\t":
            return True
        if self.spaced > 0.1:
            return named or (len(self.rows) >= 20 and self.counted)
        inside = re.compile(_IN_A_WORD % re.escape(self.delimiter))
        dense = sum(bool(inside.search(self.delimiter.join(row))) for row in self.rows) / len(self.rows)
        return self.has_heading or self.escaped > 0 or self.counted or dense > 0.8


def _is_heading(row: list[str]) -> bool:
    named = row[1:] if len(row) > 1 and not row[0] else row  # an index has no name
    return all(_HEADING.fullmatch(cell) and len(cell) <= 40 for cell in named) and len(set(row)) == len(row)


def _table(content: str, *, named: bool) -> _Table | None:
    for delimiter in ",\t;|":
        for quoted in (True, False):
            rows = _rows(content, delimiter, quoted=quoted)
            found = _Table(delimiter, quoted, rows) if rows else None
            if found and found.is_one(content, named=named):
                return found
    return _uneven_table(list(islice(filter(str.strip, lines(content)), _FEW_LINES)), named=named)


def _uneven_table(first: list[str], *, named: bool) -> _Table | None:
    """Return the table that lines are of which not all have as many cells, but delimiters stand where none do in prose."""
    for delimiter in ",\t;|":
        rows = [line.strip("\r\n").split(delimiter) for line in first]
        if not rows or len(rows[0]) == 1:
            continue
        heading = _is_heading(rows[0])
        inside = re.compile(_IN_A_WORD % re.escape(delimiter))
        dense = sum(len(inside.findall(line)) >= (1 if heading else 2) for line in first[1:])
        if (named and heading) or (len(rows) > 2 and dense > 0.9 * len(rows[1:])):
            return _Table(delimiter, True, [row for row in rows if len(row) == len(rows[0])])
    return None


def _rows(content: str, delimiter: str, *, quoted: bool, most: int | None = _RECORDS) -> list[list[str]]:
    """Return the first rows of a table; empty where two have not the same length, or quotes stand where none can."""
    rows: list[list[str]] = []
    empty = 0
    uneven = False
    before = csv.field_size_limit(_CELL)
    try:
        for row in _reader(content, delimiter, quoted=quoted):
            if not row:
                empty += 1
                continue
            if uneven or len(rows) == most:
                break
            # An empty line after every record is a line end written twice; elsewhere it parts paragraphs.
            uneven = bool(rows) and (len(row) != len(rows[0]) or empty not in (0, len(rows)))
            rows += [] if uneven else [row]
        else:
            uneven = uneven and most is None  # only the last one is: the file breaks off
    except csv.Error as error:
        # An unexpected end is that of a file that breaks off within a cell.
        uneven = uneven or most is None or "unexpected end" not in str(error)
    finally:
        csv.field_size_limit(before)
    return [] if uneven else rows


def _reader(content: str, delimiter: str, *, quoted: bool) -> Iterator[list[str]]:
    if quoted:
        return csv.reader(lines(content), delimiter=delimiter, strict=True)
    return csv.reader(lines(content), delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
