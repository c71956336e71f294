"""llama.cpp's names for ways of cutting text into words, before byte-level tokens are joined within each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Splitting(NamedTuple):
    """One of llama.cpp's pre-tokenizers.

    Attributes:
        name: the value of `tokenizer.ggml.pre`.
        whole: whether a word that is in the vocabulary is taken whole, whatever the merges say.
        differs: on which text llama.cpp's expression, which knows fewer classes of characters, cuts otherwise; empty for none.
    """

    name: str
    whole: bool
    differs: str = ""


_ENDINGS: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST: Final = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K: Final = (
    _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _REST
)  # of Llama 3, of OLMo 2 and of GPT-4
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED: Final = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+ENDINGS|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*ENDINGS|"
_SYMBOLS: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _REST
_O200K: Final = _CASED.replace("ENDINGS", _ENDINGS + "?") + r"\p{N}{1,3}" + _SYMBOLS
_TEKKEN: Final = _CASED.replace("ENDINGS", "") + r"\p{N}" + _SYMBOLS
_BEYOND_ASCII: Final = "at capital letters beyond ASCII within a word, and at combining marks"
_BYTES: Final = ("bytes", False)
_GPT2: Final = ("bytes", True)
_KNOWN: Final[Mapping[tuple[Any, ...], tuple[Splitting, ...]]] = {
    (_GPT2,): (Splitting("gpt-2", False),),
    (("digits", True), _GPT2): (Splitting("smollm", False),),
    (("split", _CL100K), _BYTES): (Splitting("llama-bpe", True), Splitting("dbrx", False)),
    (("split", _CL100K.replace("{1,3}", "")), _BYTES): (Splitting("qwen2", False),),
    (("split", _O200K), _BYTES): (Splitting("gpt-4o", False, _BEYOND_ASCII),),
    (("split", _TEKKEN), _BYTES): (Splitting("tekken", True, _BEYOND_ASCII),),
}


def splittings(pre_tokenizer: Any) -> tuple[Splitting, ...]:
    """Return llama.cpp's pre-tokenizers with the expressions of one in a `tokenizer.json`; empty when there is none."""
    return _KNOWN.get(_steps(pre_tokenizer), ())


def pre_tokenizer(name: str) -> tuple[dict[str, Any], Splitting] | None:
    """Return what a `tokenizer.json` has for one of llama.cpp's pre-tokenizers, and that one; None where nothing is known of it."""
    for steps, ways in _KNOWN.items():
        if way := next((way for way in ways if way.name == name), None):
            return {"type": "Sequence", "pretokenizers": [_stated(*step) for step in steps]}, way
    return None


def _stated(kind: str, value: Any) -> dict[str, Any]:
    """Return one step of a key of `_KNOWN` as a `tokenizer.json` states it."""
    if kind == "bytes":
        return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": value}
    if kind == "digits":
        return {"type": "Digits", "individual_digits": value}
    return {"type": "Split", "pattern": {"Regex": value}, "behavior": "Isolated", "invert": False}


def _steps(stated: Any) -> tuple[Any, ...]:
    """Return the pre-tokenizer as a key of `_KNOWN`; a step that none of them has is its own name."""
    if stated is None:
        return ()
    kind = stated["type"]
    if kind == "Sequence":
        return tuple(step for part in stated["pretokenizers"] for step in _steps(part))
    if kind == "ByteLevel" and not stated.get("add_prefix_space"):
        return (("bytes", stated.get("use_regex", True)),)
    if kind == "Digits":
        return (("digits", stated["individual_digits"]),)
    if (
        kind == "Split"
        and stated["behavior"] == "Isolated"
        and not stated.get("invert")
        and "Regex" in stated["pattern"]
    ):
        return (("split", stated["pattern"]["Regex"]),)
    return (kind,)
