"""Documents out of records: which field of a JSON object, a row of a table or a chat is the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyblock.contract.text_reader import Chat, Documents, require_characters
from anyblock.errors import InputError, nearest

_TEXT: Final = ("text", "content")
CHATS: Final = ("messages", "conversations", "conversation")
"""Fields that usually hold a conversation."""
_TURNS: Final = (
    ("instruction", "input", "output"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "response"),
)
"""Fields that are a text together, as widespread data sets have them; an empty one is left out."""
_ROLES: Final = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant"}


@dataclass(frozen=True)
class Records:
    """The records of one file.

    Attributes:
        path: names the file in errors.
        what: the file's format, for instance `JSON`.
        unit: what one record is called, `line` or `record`.
        entries: number and content of each record, numbers from 1.
    """

    path: str
    what: str
    unit: str
    entries: Iterable[tuple[int, Any]]

    def documents(self, field: str | None, chat: Chat | None) -> Documents:
        """Return one text per record, and a note that says what was taken.

        Args:
            field: the field that holds the text or the chat; None looks for one that is usual.
            chat: writes conversations; None puts their turns on lines of their own.

        Raises:
            InputError: a record has no text, or it is not clear which of its fields it is; names the record.
        """
        found: list[str] = []
        names: tuple[str, ...] | None = None
        empty = 0
        for number, record in self.entries:
            where = f"{self.path}, {self.unit} {number}"
            if isinstance(record, str) and field is None:
                names, text = names or (), record
            else:
                if not isinstance(record, Mapping):
                    raise InputError(f"{where}: not an object", expected="an object with a field of text")
                if names is None:
                    names = (field,) if field is not None else _fields(record, where)
                text = _text(record, names, where, chat)
            require_characters(text, where)
            if text.strip():
                found.append(text)
            else:
                empty += 1
        what = " and ".join(repr(name) for name in names or ())
        note = f"{self.path}: {self.what}, {len(found):,} documents" + (f" from {what}" if what else "")
        return Documents(found, note + (f", {empty:,} empty ones left out" if empty else ""))


def is_usual(names: Sequence[str]) -> bool:
    """Return whether some of these names of fields usually are the text."""
    return bool({*_TEXT, *CHATS} & {*names}) or any({turns[0], turns[-1]} <= {*names} for turns in _TURNS)


def _fields(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the fields of a record that make its text."""
    for name in (*_TEXT, *CHATS):
        if isinstance(record.get(name), str | list):
            return (name,)
    for names in _TURNS:
        if all(isinstance(record.get(name, ""), str) for name in names) and record.keys() >= {names[0], names[-1]}:
            return names
    strings = [name for name, value in record.items() if isinstance(value, str)]
    if len(strings) == 1:
        return (strings[0],)
    raise InputError(
        f"{where}: no field 'text', and it is not clear which of the others is the text",
        expected="one of " + ", ".join(map(repr, strings)) if strings else "a field with a string",
        hint="name it with data.field=NAME (for anyblock evaluate: --field NAME)" if strings else "",
    )


def _text(record: Mapping[str, Any], names: Sequence[str], where: str, chat: Chat | None) -> str:
    parts: list[str] = []
    for name in names:
        value = record.get(name, "" if len(names) > 1 else None)
        if isinstance(value, list):
            value = _conversation(value, f"{where}: {name}", chat)
        if not isinstance(value, str):
            hint = nearest(name, record.keys()) if name not in record else ""
            raise InputError(f"{where}: no string under {name!r}", expected="a text in every record", hint=hint)
        parts.append(value)
    return "\n\n".join(part for part in parts if part.strip())


def _conversation(turns: list[Any], where: str, chat: Chat | None) -> str:
    messages: list[dict[str, str]] = []
    for turn in turns:
        if isinstance(turn, str):
            turn = {"role": ("user", "assistant")[len(messages) % 2], "content": turn}
        role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
        said = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        if isinstance(said, list):  # parts, of which some may be pictures
            said = "".join(
                part["text"] for part in said if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
        if not (isinstance(role, str) and isinstance(said, str)):
            raise InputError(f"{where}: not a turn of a conversation", expected='{"role": "user", "content": "..."}')
        messages.append({"role": _ROLES.get(role, role), "content": said})
    if not messages:
        raise InputError(f"{where}: a conversation of no turns", expected='[{"role": "user", "content": "..."}, ...]')
    if chat is None:
        return "\n".join(message["content"] for message in messages)
    try:
        return chat(messages)
    except Exception as error:
        raise InputError(
            f"{where}: the model's chat template refuses it: {error}",
            expected="roles in an order that the template has",
        ) from error
