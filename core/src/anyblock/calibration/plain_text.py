"""Core's own reader: plain UTF-8 text, and nothing that only looks like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Final

from anyblock.contract.text_reader import Chat, Documents, TextReader
from anyblock.errors import InputError

_PLAIN: Final = {".txt", ".text", ".md", ".rst", ".tex", ".py", ""}


class PlainText(TextReader):
    """Reads UTF-8 text as one document."""

    summary: ClassVar[str] = "Plain UTF-8 text."
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".md", ".text")

    def read(self, data: bytes, path: Path, *, field: str | None, chat: Chat | None) -> Documents:
        """See `TextReader.read`; JSON, tables and what is compressed would pass for text, and are refused."""
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        foreign = path.suffix.lower() not in _PLAIN or _is_json(text) or _is_json(text.strip().partition("\n")[0])
        if foreign or field is not None or "\0" in text:
            raise InputError(
                f"{path} is not plain text, and nothing that is installed reads it",
                expected="UTF-8 text, or the distribution anyblock-data for JSON, tables and compressed files",
                hint="python -m pip install anyblock-data",
            )
        return Documents([text])


def _is_json(text: str) -> bool:
    """Return whether a text is a JSON object or list."""
    try:
        return isinstance(json.loads(text), dict | list) if text.lstrip().startswith(("{", "[")) else False
    except (ValueError, RecursionError):
        return False
