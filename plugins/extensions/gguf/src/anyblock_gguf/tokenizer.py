"""A child's tokenizer in the terms of llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

TOKENIZER: Final = "tokenizer.json"
_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES: Final = ("bytes", False)
_GPT2: Final = ("bytes", True)
_PRE_TOKENIZERS: Final[dict[tuple[Any, ...], tuple[str, bool]]] = {
    (_GPT2,): ("gpt-2", False),
    (("digits", True), _GPT2): ("smollm", False),
    (("split", _LLAMA3), _BYTES): ("llama-bpe", True),
    (("split", _LLAMA3.replace("{1,3}", "")), _BYTES): ("qwen2", False),
}
"""llama.cpp's names for ways of splitting text, and whether it takes words of the vocabulary whole there."""


def tokenizer_obstacles(folder: Path, vocabulary: int) -> list[str]:
    """Return why llama.cpp has not got this tokenizer; empty when it has, or when there is none.

    Args:
        folder: the child's directory.
        vocabulary: the number of its embeddings.
    """
    data = _read(folder)
    if data is None:
        others = sorted(path.name for path in folder.glob("*token*") if path.suffix != ".md")
        others += [name for name in ("vocab.json", "merges.txt", "spiece.model") if (folder / name).exists()]
        return [f"its tokenizer is {', '.join(others)}, and only {TOKENIZER} is read"] if others else []
    model = data["model"]
    if model["type"] != "BPE":
        return [f"its tokenizer is of the type {model['type']}; byte-level BPE can be expressed"]
    if model.get("byte_fallback"):
        return ["its tokenizer is one of sentencepiece (with byte fallback); byte-level BPE can be expressed"]
    found = [f"its tokenizer has {name}" for name in _UNKNOWN if model.get(name)]
    if data.get("normalizer"):
        found.append(f"its tokenizer normalizes text ({data['normalizer']['type']})")
    known = _PRE_TOKENIZERS.get(_steps(data.get("pre_tokenizer")))
    if known is None:
        found.append("its tokenizer splits text in a way that llama.cpp has no name for")
    elif known[1] != bool(model.get("ignore_merges")):
        found.append(
            f"its tokenizer has ignore_merges={bool(model.get('ignore_merges'))}, unlike llama.cpp's {known[0]}"
        )
    beyond = [token for token, index in _tokens(data).items() if index >= vocabulary]
    if beyond:
        found.append(f"{len(beyond)} tokens of its tokenizer have no embedding, such as {beyond[0]!r}")
    return found


_UNKNOWN: Final = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")


def add_tokenizer(writer: Any, folder: Path, vocabulary: int) -> None:
    """Write the tokenizer, its special tokens and the chat template; `tokenizer_obstacles` is empty.

    Args:
        writer: a `gguf.GGUFWriter`.
        folder: the child's directory.
        vocabulary: the number of its embeddings; those without a token get an unused one.
    """
    import gguf

    data = _read(folder)
    if data is None:
        writer.add_tokenizer_model("none")
        return
    names = {index: token for token, index in _tokens(data).items()}
    added = {token["id"]: token for token in data.get("added_tokens", [])}
    kinds = gguf.TokenType
    tokens, types = [], []
    for index in range(vocabulary):
        tokens.append(names.get(index, f"[PAD{index}]"))
        if index in added:
            types.append(kinds.CONTROL if added[index]["special"] else kinds.USER_DEFINED)
        else:
            types.append(kinds.NORMAL if index in names else kinds.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRE_TOKENIZERS[_steps(data["pre_tokenizer"])][0])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocabulary)
    special.add_special_token.update(_added(data.get("post_processor")))
    special.add_to_gguf(writer, quiet=True)


def _added(stated: Any) -> dict[str, bool]:
    """Return whether the tokenizer puts a token in front of a text and at its end, which its settings may say otherwise."""
    parts = (stated or {}).get("processors", [stated or {"type": None}])
    if any(part["type"] in ("BertProcessing", "RobertaProcessing") for part in parts):
        return {"bos": True, "eos": True}
    single: list[dict[str, Any]] = next(
        (part["single"] for part in parts if part["type"] == "TemplateProcessing"), [{}]
    )
    return {"bos": "SpecialToken" in single[0], "eos": "SpecialToken" in single[-1]}


def _read(folder: Path) -> Any:
    path = folder / TOKENIZER
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _tokens(data: Any) -> dict[str, int]:
    return {**data["model"]["vocab"]} | {token["content"]: token["id"] for token in data.get("added_tokens", [])}


def _steps(stated: Any) -> tuple[Any, ...]:
    """Return the pre-tokenizer as a key of `_PRE_TOKENIZERS`; a step that none of them has is its own name."""
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
