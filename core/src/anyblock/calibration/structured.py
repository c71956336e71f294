"""Tell by its content whether a text is a table, JSON or markup, and say how to make JSON lines of it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from anyblock.calibration.file_format import refusal

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
_ANY: Final = 'write its texts as JSON lines, {"text": "..."} on every line'
_LINES: Final = 'make JSON lines of it%s with: python -c "%s" @FILE > @LINES'
_STRINGS: Final = _LINES % (
    "",
    "import json,sys; [print(json.dumps({'text': json.loads(r)})) for r in open(sys.argv[1], encoding='utf-8-sig')]",
)
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


def json_lines_advice(record: dict[str, Any]) -> str:
    """Return what to do with JSON lines whose objects have no `text` and are otherwise like this one."""
    return _command("map(json.loads, open(sys.argv[1], encoding='utf-8-sig'))", record)


def refuse_structured(content: str, path: Path) -> None:
    """Refuse a text whose characters are mostly structure, which nothing should be calibrated on.

    Args:
        content: the text.
        path: the file that it is from.

    Raises:
        InputError: it is JSON, a table, HTML or XML as a whole; the message has a command that takes the text out.
    """
    if _MARKUP.match(content):
        raise refusal(path, "is HTML or XML", _TAGS)
    start = content.lstrip()[:1]
    if start == '"' and "\\" in content and all(isinstance(_value(line), str) for line in _first_lines(content)):
        raise refusal(path, "is JSON (strings), not text", _STRINGS)
    if start in ("[", "{"):
        values, whole = _json_values(content)
        if whole:
            raise refusal(path, "is JSON, not text", _json_advice(values))
    table = _table(content, named=path.suffix.lower() in _NAMED_TABLES)
    if table is not None:
        raise refusal(path, f"is a table ({table.name}), not text", table.advice())


def _first_lines(content: str) -> Iterator[str]:
    return islice(filter(str.strip, lines(content)), _FIRST_LINES)


def _value(line: str) -> Any:
    try:
        return parsed(line)
    except (ValueError, RecursionError):
        return None


def _json_values(content: str) -> tuple[list[Any], bool]:
    """Read JSON values one after the other; also return whether they are the whole text, or break off only where it ends."""
    decoder, values, place, end = json.JSONDecoder(parse_int=float), list[Any](), 0, len(content.rstrip())
    while (place := _next(content, place)) < end:
        if content[place] not in "[{":
            return values, False
        try:
            value, place = decoder.raw_decode(content, place)
        except json.JSONDecodeError as error:
            return values, error.msg.startswith("Unterminated string") or error.pos > max(end - 6, place + 1)
        except RecursionError:
            return values, True
        values.append(value)
    return values, any(values)


def _next(content: str, place: int) -> int:
    while place < len(content) and content[place] in " \t\r\n,":
        place += 1
    return place


def _json_advice(values: list[Any]) -> str:
    if len(values) != 1:
        return _ANY
    data, source = values[0], "json.load(open(sys.argv[1], encoding='utf-8-sig'))"
    if isinstance(data, dict):
        if isinstance(data.get("text"), str):
            return _command(f"[{source}]", data)
        lists = {key: value for key, value in data.items() if isinstance(value, list) and value and key.isidentifier()}
        if not lists:
            return _ANY
        key = max(lists, key=lambda name: len(lists[name]))
        data, source = lists[key], f"{source}['{key}']"
    return _command(source, data[0])


def _command(source: str, record: Any) -> str:
    """Return the command that writes a JSON line for each record of an expression in Python; `record` is the first."""
    taken = "r" if isinstance(record, str) else _taken(record) if isinstance(record, dict) else None
    if taken is None:
        return _ANY
    return _LINES % (
        "",
        f"import json,sys; [print(json.dumps({{'text': t}})) for r in {source} for t in [{taken}] if t]",
    )


def _taken(record: dict[str, Any]) -> str | None:
    """Return an expression for the text of a record `r`."""
    if isinstance(record.get("text"), str):
        return "r['text']"
    for key, value in record.items():
        turn = value[0] if isinstance(value, list) and value else None
        said = next((name for name in ("content", "value") if isinstance(turn, dict) and name in turn), None)
        if said and key.isidentifier():
            return rf"'\n'.join(str(m['{said}']) for m in r['{key}'])"
    if any(isinstance(value, str) for value in record.values()):
        return r"'\n'.join(v for v in r.values() if isinstance(v, str))"
    return None


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

    def advice(self) -> str:
        """Return a command that writes the column with the most text, without its heading."""
        width = len(self.rows[0])
        column = max(range(width), key=lambda place: sum(len(row[place]) for row in self.rows[1:]))
        if "text" in self.rows[0]:
            column = self.rows[0].index("text")
        options = ", newline='', encoding='utf-8-sig'"
        dialect = "" if self.delimiter == "," else f", delimiter='{self.delimiter}'".replace("\t", r"\t")
        dialect += "" if self.quoted else ", quoting=csv.QUOTE_NONE"
        rows = f"list(csv.reader(open(sys.argv[1]{options}){dialect}))" + ("[1:]" if self.has_heading else "")
        code = (
            "import csv,json,sys; csv.field_size_limit(10**9); "
            f"[print(json.dumps({{'text': t}})) for r in {rows} for t in r[{column}:{column + 1}] if t]"
        )
        name = f" {self.rows[0][column]!r}" if self.has_heading else ""
        return _LINES % (f" (of column {column}{name}; change both numbers at the end for another one)", code)

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


def _rows(content: str, delimiter: str, *, quoted: bool) -> list[list[str]]:
    """Return the first records of a table; empty where two have not the same length, or quotes stand where none can."""
    rows: list[list[str]] = []
    empty = 0
    uneven = False
    before = csv.field_size_limit(_CELL)
    try:
        for row in _reader(content, delimiter, quoted=quoted):
            if not row:
                empty += 1
                continue
            if uneven or len(rows) == _RECORDS:
                break
            # An empty line after every record is a line end written twice; elsewhere it parts paragraphs.
            uneven = bool(rows) and (len(row) != len(rows[0]) or empty not in (0, len(rows)))
            rows += [] if uneven else [row]
        else:
            uneven = False  # only the last one is: the file breaks off
    except csv.Error as error:
        uneven = uneven or "unexpected end" not in str(error)  # this one is a file that breaks off within a cell
    finally:
        csv.field_size_limit(before)
    return [] if uneven else rows


def _reader(content: str, delimiter: str, *, quoted: bool) -> Iterator[list[str]]:
    if quoted:
        return csv.reader(lines(content), delimiter=delimiter, strict=True)
    return csv.reader(lines(content), delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
