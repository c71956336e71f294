"""Read text from files as they lie on disk."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from anyblock.calibration.data_sets import HUB, fetched
from anyblock.contract.text_reader import Chat, Documents, TextReader
from anyblock.errors import InputError, UsageError
from anyblock.extensions import installed_extensions
from anyblock.plugins.blame import blaming, check_result
from anyblock.plugins.collecting import CORE
from anyblock.plugins.status import Origin

_EMPTY_LINE: Final = "\n\n"


@dataclass(frozen=True)
class Text:
    """Documents, one after the other.

    Attributes:
        content: all of it; an empty line stands between two documents.
        starts: where each document but the first begins in `content`.
        notes: what was read and left out, a line each.
    """

    content: str
    starts: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

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


def read_text(path: str | Path, *, field: str | None = None, chat: Chat | None = None) -> Text:
    """Return the text of a file, or of all files of a folder that hold text, one after the other.

    Core reads plain UTF-8 text; extensions bring further formats (see `anyblock.contract.text_reader`).

    Args:
        path: a file or a folder; `-` is standard input, `hf://datasets/OWNER/NAME/PATH` a file or folder of a data set on the
            Hugging Face hub.
        field: of records, the field that holds the text, or a conversation; None takes `text` or another one that is usual.
        chat: writes conversations; None puts their turns on lines of their own.

    Raises:
        InputError: the file is missing, unreadable or empty, or no reader can use it.
    """
    if str(path) == "-":
        return _of_bytes(sys.stdin.buffer.read(), Path("standard input"), field, chat)
    if str(path).startswith(HUB):
        path = fetched(str(path))
    path = Path(path).expanduser()
    if not path.is_dir():
        return _of_file(path, field, chat)
    every = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file, path))
    readers = [reader for _, _, reader in _readers()]
    files = next(filter(None, (reader.files(every) for reader in readers)), [])
    if not files:
        suffixes = dict.fromkeys(suffix for reader in readers for suffix in reader.suffixes)
        raise InputError(f"{path} has no file of text", expected=f"files that end in {', '.join(suffixes)}")
    found = [_of_file(file, field, chat) for file in files]
    others = len(every) - len(files)
    notes = [note for text in found for note in text.notes]
    notes += [f"{path}: {len(files):,} files" + (f", {others:,} skipped" if others else "")]
    return _joined([document for text in found for document in text.documents], notes)


def _readers() -> list[tuple[str, Origin, TextReader]]:
    """Return name, origin and reader, those of extensions first."""
    installed = installed_extensions()
    origins = installed.origins("readers")
    found = [(name, origins[name], reader()) for name, reader in installed.named("readers").items()]
    return sorted(found, key=lambda row: row[1].distribution == CORE)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _of_file(path: Path, field: str | None, chat: Chat | None) -> Text:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"text file {path} does not exist", expected="a file or a folder with text") from error
    except OSError as error:
        raise InputError(
            f"text file {path} cannot be read: {error.strerror}", expected="a readable text file"
        ) from error
    return _of_bytes(data, path, field, chat)


def _of_bytes(data: bytes, path: Path, field: str | None, chat: Chat | None) -> Text:
    text = Text("")
    for name, origin, reader in sorted(_readers(), key=lambda row: path.suffix.lower() not in row[2].suffixes):
        what = f"the text reader {name!r}"
        with blaming(origin, what, reader):
            found = reader.read(data, path, field=field, chat=chat)
        if found is not None:
            check_result(origin, what, found, Documents, "Documents")
            text = _joined(list(found.texts), [found.note] if found.note else [])
            break
    if not text.content.strip():
        raise InputError(f"{path} holds no text", expected="a file with some text in it")
    return text


def _joined(documents: list[str], notes: list[str]) -> Text:
    starts, place = [], 0
    for document in documents[:-1]:
        place += len(document) + len(_EMPTY_LINE)
        starts.append(place)
    return Text(_EMPTY_LINE.join(documents), tuple(starts), tuple(notes))


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
