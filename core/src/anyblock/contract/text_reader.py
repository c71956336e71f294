"""`TextReader`: reads calibration text out of files that are more than plain text."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from anyblock.errors import InputError

Chat = Callable[[list[dict[str, str]]], str]
"""Writes a conversation, `[{"role": ..., "content": ...}]`, as the model was trained on it: its chat template."""


@dataclass(frozen=True)
class Documents:
    """What a file holds: its documents, and what was read and left out, in one line; "" for all of a plain text. Since 0.2."""

    texts: Sequence[str]
    note: str = ""


class TextReader(ABC):
    """Reads files of text. Those that name a file's suffix are asked first, core's own after those of extensions. Since 0.2.

    Class attributes:
        summary: one sentence.
        suffixes: how names of files end that are read where a folder is given, in lower case.
    """

    summary: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def read(self, data: bytes, path: Path, *, field: str | None, chat: Chat | None) -> Documents | None:
        """Return what a file holds; None where it is for another reader.

        Args:
            data: all bytes of the file.
            path: names it in errors.
            field: of records, the field that holds the text, or a conversation; None takes a usual one.
            chat: writes conversations; None puts their turns on lines of their own.

        Raises:
            InputError: the file cannot be used.
        """

    def files(self, every: Sequence[Path]) -> list[Path]:
        """Return those of a folder's files that this reader reads; hidden ones are not asked for."""
        return [path for path in every if path.suffix.lower() in self.suffixes]


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
