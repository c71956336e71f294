"""JSON: parsed from untrusted files, and written."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from typing import Any

from anyblock.errors import AnyBlockError, CheckpointError

_BRACKETS = 1_000_000
_BYTES_PER_BRACKET = 16
_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong, _SHORT.maxlist, _SHORT.maxdict = 160, 80, 40, 8, 8
Pairs = list[tuple[str, Any]]


def parse_object(
    raw: bytes,
    where: str,
    *,
    on_object: Callable[[Pairs], Any] | None = None,
    error: type[AnyBlockError] = CheckpointError,
) -> dict[str, Any]:
    """Parse UTF-8 JSON whose outermost value is an object.

    Every `[]` or `{}` costs Python some 60 bytes of memory for two bytes of text, so text that is made of little else
    is refused before it is parsed.

    Args:
        raw: the text.
        where: names the file in an error.
        on_object: called with the pairs of every object, innermost first; its result takes the object's place.
        error: the class to raise.

    Raises:
        CheckpointError: not UTF-8, not JSON, nested too deeply, or not an object.
    """
    if (brackets := raw.count(b"[") + raw.count(b"{")) > max(_BRACKETS, len(raw) // _BYTES_PER_BRACKET):
        raise error(f"{where} holds {brackets:,} lists and objects in {len(raw):,} bytes", expected="JSON with content")
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=on_object)
    except UnicodeDecodeError as cause:
        raise error(
            f"{where} is not UTF-8 text: byte {cause.start} is {raw[cause.start]:#04x}", expected="a JSON object"
        ) from cause
    except RecursionError as cause:
        raise error(f"{where} is nested too deeply", expected="a JSON object of ordinary depth") from cause
    except ValueError as cause:
        raise error(f"{where} is not JSON: {cause}", expected="a JSON object") from cause
    if not isinstance(data, dict):
        raise error(f"{where} holds a JSON {_kind(data)}", expected="a JSON object")
    return data


def unique(pairs: Pairs, where: str, *, error: type[AnyBlockError] = CheckpointError) -> dict[str, Any]:
    """Return the pairs as a dict.

    Raises:
        CheckpointError: a key stands there twice (or the class given as `error`).
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise error(f"{where}: the key {shown(key)} stands there twice", expected="every key once")
            seen.add(key)
    return found


def shown(value: object) -> str:
    """Return `repr(value)` for an error message, shortened without ever being complete in memory."""
    return _SHORT.repr(value)


def json_bytes(data: Any) -> bytes:
    """Return data as indented JSON in ASCII, with a newline at the end.

    Raises:
        TypeError, ValueError: the data is not JSON.
    """
    return (json.dumps(data, indent=2) + "\n").encode()


def _kind(data: object) -> str:
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "boolean"
    return {list: "list", str: "string", int: "number", float: "number"}.get(type(data), type(data).__name__)
