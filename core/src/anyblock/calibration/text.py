"""Read text from a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from anyblock.calibration.file_format import command, decoded_text
from anyblock.calibration.structured import holds_json_lines, json_lines_advice, lines, parsed, refuse_structured
from anyblock.errors import InputError, UsageError

_EMPTY_LINE: Final = "\n\n"


@dataclass(frozen=True)
class Text:
    """Documents, one after the other.

    Attributes:
        content: all of it; an empty line stands between two documents.
        starts: where each document but the first begins in `content`.
    """

    content: str
    starts: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.content

    @property
    def documents(self) -> list[str]:
        """The documents by themselves, without those that are empty."""
        borders = (0, *self.starts, len(self.content))
        parts = [self.content[start:end] for start, end in pairwise(borders)]
        parts[:-1] = [part.removesuffix(_EMPTY_LINE) for part in parts[:-1]]
        return [part for part in parts if part.strip()]

    def cut(self, place: int) -> tuple[Text, Text]:
        """Return what comes before a place in `content`, and the rest."""
        before = Text(self.content[:place], tuple(start for start in self.starts if start < place))
        return before, Text(self.content[place:], tuple(start - place for start in self.starts if start > place))


def read_text(path: str | Path) -> Text:
    """Return the text of a UTF-8 file; of JSON lines, whatever the file's name, the `text` fields as documents.

    Raises:
        InputError: the file is missing, unreadable or empty, a JSON line has no string under `text`, or the file is not
            text by its bytes (compressed, a table, JSON, another encoding ...), with what to do about it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"text file {path} does not exist", expected="a UTF-8 text file or a .jsonl file") from error
    except OSError as error:
        raise InputError(
            f"text file {path} cannot be read: {error.strerror}", expected="a readable text file"
        ) from error
    content = decoded_text(data, path)
    named = path.suffix.lower() in {".jsonl", ".ndjson"}
    by_line = holds_json_lines(content, named=named)
    if not by_line:
        refuse_structured(content, path)
    text = _joined(_documents(content, path)) if by_line or named else Text(content)
    if not text.content.strip():
        raise InputError(f"{path} holds no text", expected="a file with some text in it")
    return text


def _joined(documents: list[str]) -> Text:
    starts, place = [], 0
    for document in documents[:-1]:
        place += len(document) + len(_EMPTY_LINE)
        starts.append(place)
    return Text(_EMPTY_LINE.join(documents), tuple(starts))


def _documents(content: str, path: Path) -> list[str]:
    documents: list[str] = []
    for number, line in enumerate(lines(content), start=1):
        if not line.strip():
            continue
        try:
            entry = parsed(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: not JSON ({error})", expected="one JSON object per line"
            ) from error
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            advice = json_lines_advice(entry) if isinstance(entry, dict) and not documents else ""
            raise InputError(
                f"{path}, line {number}: no string under 'text'",
                expected='{"text": "..."} on every line',
                hint=command(advice, path),
            )
        require_characters(entry["text"], f"{path}, line {number}")
        documents.append(entry["text"])
    return documents


def require_characters(text: str, what: str) -> None:
    r"""Refuse halves of surrogate pairs, which JSON can write (`"\ud83d"`) and no tokenizer can read.

    Args:
        text: any text.
        what: names it in the error.

    Raises:
        InputError: there is such a half.
    """
    found = re.search("[\ud800-\udfff]", text)
    if found:
        raise InputError(
            f"{what}: half of a surrogate pair, \\u{ord(found.group()):04x}, at character {found.start()}",
            expected="whole characters",
            hint="write the text again from where it comes from, as UTF-8",
        )


def calibration_split(text: Text, fraction: float = 0.7) -> tuple[Text, Text]:
    """Cut one text in two, so that what a child is evaluated on was never calibrated on.

    Args:
        text: all there is.
        fraction: the share of characters that goes to calibration; the cut is moved to the nearest line border.

    Returns:
        `(calibration text, evaluation text)`; joined they are the whole text.

    Raises:
        InputError: the text has no line border to cut at, so that one part would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"calibration fraction is {fraction}", expected="a number between 0 and 1, both excluded")
    content = text.content
    target = round(len(content) * fraction)
    before = content.rfind("\n", 0, target) + 1
    after = content.find("\n", target) + 1 or len(content)
    cut = before if target - before <= after - target else after
    if not content[:cut].strip() or not content[cut:].strip():
        cut = after if cut == before else before
    if not content[:cut].strip() or not content[cut:].strip():
        raise InputError(
            f"the text ({len(content)} characters) has no line border between its calibration and its evaluation part",
            expected="at least two lines of text",
            hint="give a separate file for evaluation",
        )
    return text.cut(cut)
