"""Text in files whose paragraphs are documents of their own."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from anyblock.contract.text_reader import Chat, Documents, TextReader


class Paragraphs(TextReader):
    """Reads `.paragraphs`: UTF-8 text in which an empty line ends a document."""

    summary: ClassVar[str] = "Files named .paragraphs, in which every paragraph is a document."
    suffixes: ClassVar[tuple[str, ...]] = (".paragraphs",)

    def read(self, data: bytes, path: Path, *, field: str | None, chat: Chat | None) -> Documents | None:
        """See `TextReader.read`."""
        if path.suffix != ".paragraphs":
            return None
        texts = [text for text in data.decode().split("\n\n") if text.strip()]
        return Documents(texts, f"{path}: {len(texts)} paragraphs")
