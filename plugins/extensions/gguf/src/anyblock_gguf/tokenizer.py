"""A child's tokenizer in the terms of llama.cpp.

What counts is the tokenizer that transformers builds from the child's files, which is not always the one that is written in
its `tokenizer.json`: some classes put steps of their own in place of those.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock_gguf.sentencepiece import BYTE_TOKENS, SPACE, Pieces
from anyblock_gguf.splitting import splittings

if TYPE_CHECKING:
    from collections.abc import Mapping

_OTHER_FILES: Final = ("vocab.json", "merges.txt", "spiece.model")
_UNKNOWN: Final = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
STRIPPING: Final = frozenset({"<unk>", "<s>", "<|endoftext|>"})
"""The special tokens of Phi-3 after which spaces stay; llama.cpp knows them, by the model's name."""


@dataclass
class Expressed:
    """A tokenizer as llama.cpp has it.

    Attributes:
        model, pre: `tokenizer.ggml.model` and `tokenizer.ggml.pre`.
        scores: by token, -1 less for every later one; empty for byte-level BPE.
        space: whether llama.cpp puts a space in front of a text; None where it has no such setting.
        name: the model's name, where llama.cpp goes by that.
        notes: what it reads otherwise, a sentence each.
        obstacles: why it cannot be expressed at all.
    """

    model: str = "gpt2"
    pre: str = "default"
    scores: Mapping[str, float] = field(default_factory=dict)
    space: bool | None = None
    name: str | None = None
    notes: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)


def tokenizer_obstacles(folder: Path, vocabulary: int) -> list[str]:
    """Return why llama.cpp has not got this tokenizer; empty when it has, or when there is none.

    Args:
        folder: the child's directory.
        vocabulary: the number of its embeddings.
    """
    tokenizer = loaded_tokenizer(folder)
    if tokenizer is None or isinstance(tokenizer, str):
        return [tokenizer] if tokenizer else []
    found = expressed(tokenizer.backend_tokenizer).obstacles
    beyond = [token for token, index in tokenizer.backend_tokenizer.get_vocab().items() if index >= vocabulary]
    if beyond:
        found.append(f"{len(beyond)} tokens of its tokenizer have no embedding, such as {min(beyond)!r}")
    return found


def add_tokenizer(writer: Any, folder: Path, vocabulary: int) -> None:
    """Write the tokenizer, its special tokens and the chat template, and warn of what llama.cpp will read otherwise.

    `tokenizer_obstacles` is empty.

    Args:
        writer: a `gguf.GGUFWriter`.
        folder: the child's directory.
        vocabulary: the number of its embeddings; those without a token get an unused one.
    """
    import gguf

    tokenizer = loaded_tokenizer(folder)
    if tokenizer is None:
        writer.add_tokenizer_model("none")
        return
    assert not isinstance(tokenizer, str)
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    form = expressed(tokenizer.backend_tokenizer)
    if form.notes:
        warnings.warn(f"in llama.cpp {'; '.join(form.notes)}", stacklevel=2)
    known = tokenizer.backend_tokenizer.get_vocab()
    names = {index: token for token, index in known.items()}
    tokens = [names.get(index, f"[PAD{index}]") for index in range(vocabulary)]
    writer.add_tokenizer_model(form.model)
    writer.add_tokenizer_pre(form.pre)
    writer.add_token_list(tokens)
    if form.model == "llama":
        lowest = -1.0 - len(form.scores)
        writer.add_token_scores([form.scores.get(token, lowest) for token in tokens])
    writer.add_token_types(_types(tokens, names, data, form))
    if form.space is not None:
        writer.add_add_space_prefix(form.space)
    if form.name:
        writer.add_name(form.name)
    special = gguf.SpecialVocab(folder, load_merges=False, n_vocab=vocabulary)
    if form.model == "gpt2":
        # Spaces within a token are written as byte-level BPE writes them.
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in data["model"]["merges"]]
        special.merges = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in pairs]
    around = _around(data.get("post_processor"))
    assert around is not None
    for kind, token in zip(("bos", "eos"), around, strict=True):
        special.add_special_token[kind] = token is not None
        index = getattr(tokenizer, f"{kind}_token_id") if token is None else known[token]
        if index is not None:
            special.special_token_ids[kind] = index
    special.add_to_gguf(writer, quiet=True)


def expressed(backend: Any) -> Expressed:
    """Return a tokenizer as llama.cpp has it.

    Args:
        backend: a `tokenizers.Tokenizer`.
    """
    data = json.loads(backend.to_str())
    model, form = data["model"], Expressed()
    if model["type"] != "BPE":
        form.obstacles.append(f"its tokenizer is of the type {model['type']}; BPE can be expressed")
        return form
    form.obstacles += [f"its tokenizer has {name}" for name in _UNKNOWN if model.get(name)]
    if model.get("byte_fallback"):
        pieces = Pieces(data)
        form.model, form.scores, form.space = "llama", pieces.scores, pieces.space
        form.notes, form.obstacles = pieces.notes, form.obstacles + pieces.obstacles
    else:
        _byte_level(backend, data, form)
    if _around(data.get("post_processor")) is None:
        form.obstacles.append("its tokenizer puts more than one token in front of a text or after it")
    _added(data.get("added_tokens", []), form)
    return form


def _byte_level(backend: Any, data: Any, form: Expressed) -> None:
    normalizers = [step for step in _parts(data.get("normalizer"), "normalizers") if step["type"] != "NFC"]
    if normalizers:
        form.obstacles.append(f"its tokenizer normalizes text ({normalizers[0]['type']})")
    elif data.get("normalizer"):
        form.notes.append(
            "text is not normalized: the child's tokenizer composes characters and their accents (NFC) beforehand, so that "
            "text which comes decomposed gets other tokens"
        )
    known = splittings(data.get("pre_tokenizer"))
    if not known:
        form.obstacles.append("its tokenizer splits text in a way that llama.cpp has no name for")
        return
    whole = bool(data["model"].get("ignore_merges"))
    chosen = next((way for way in known if way.whole == whole), known[0])
    if chosen.whole != whole and (token := _unreached(backend)) is not None:
        form.obstacles.append(
            f"its tokenizer has ignore_merges={whole}, unlike llama.cpp's {chosen.name}, and its merges do not make {token!r}"
        )
    form.pre = chosen.name
    if chosen.differs:
        form.notes.append(f"words are cut otherwise {chosen.differs}")


def _unreached(backend: Any) -> str | None:
    """Return a token that the merges do not make of its own text: only there do `ignore_merges` and merging differ."""
    model = type(backend).from_str(backend.to_str()).model
    model.ignore_merges = False
    vocabulary = backend.get_vocab(with_added_tokens=False)
    return next((token for token in vocabulary if [part.value for part in model.tokenize(token)] != [token]), None)


def _added(added: Sequence[Mapping[str, Any]], form: Expressed) -> None:
    """Look whether llama.cpp finds the tokens that are looked for in the text itself."""
    cutting = [token["content"] for token in added if token["lstrip"] or token["single_word"]]
    if cutting:
        form.obstacles.append(f"its token {cutting[0]!r} takes spaces in front of it, or stands for whole words alone")
    stripping = {token["content"] for token in added if token["rstrip"]}
    if stripping:
        every = {token["content"] for token in added}
        if {*STRIPPING, "</s>"} <= every and stripping == every - STRIPPING:
            form.name = "phi-3"
        else:
            form.obstacles.append(
                f"its token {min(stripping)!r} takes the spaces after it, which llama.cpp does for Phi-3"
            )


def _types(tokens: Sequence[str], names: Mapping[int, str], data: Any, form: Expressed) -> list[int]:
    import gguf

    added = {token["id"]: token for token in data.get("added_tokens", [])}
    kinds = gguf.TokenType

    def kind(index: int, token: str) -> Any:
        """Return the type of one token."""
        if index not in names:
            return kinds.UNUSED
        if form.model == "llama":
            if token == data["model"].get("unk_token"):
                return kinds.UNKNOWN
            if token in BYTE_TOKENS:
                return kinds.BYTE
            if token in form.scores and SPACE in token and not added.get(index, {}).get("special"):
                return kinds.NORMAL  # else llama.cpp would write the sign itself in place of spaces
        if index in added:
            return kinds.CONTROL if added[index]["special"] else kinds.USER_DEFINED
        return kinds.NORMAL

    return [int(kind(index, token)) for index, token in enumerate(tokens)]


def _around(stated: Any) -> tuple[str | None, str | None] | None:
    """Return the tokens in front of a text and after it; None where there are more of them."""
    parts = _parts(stated, "processors")
    for part in parts:
        if part["type"] in ("BertProcessing", "RobertaProcessing"):
            return part["cls"][0], part["sep"][0]
        if part["type"] == "TemplateProcessing":
            single = part["single"]
            place = next((index for index, step in enumerate(single) if "Sequence" in step), 0)
            before, after = single[:place], single[place + 1 :]
            if len(before) > 1 or len(after) > 1:
                return None
            first, last = (side[0]["SpecialToken"]["id"] if side else None for side in (before, after))
            return first, last
    return None, None


def _parts(stated: Any, key: str) -> list[Any]:
    """Return the steps of a part of a `tokenizer.json`, of which sequences may be nested."""
    if not stated:
        return []
    if stated["type"] == "Sequence":
        return [step for part in stated[key] for step in _parts(part, key)]
    return [stated]


def loaded_tokenizer(folder: Path) -> Any:
    """Return transformers' tokenizer, None where the child has none, or why it cannot be read."""
    from transformers import AutoTokenizer

    files = sorted(path.name for path in folder.glob("*token*") if path.suffix != ".md")
    files += [name for name in _OTHER_FILES if (folder / name).exists()]
    if not files:
        return None
    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # noqa: BLE001 - whatever a tokenizer's own class raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"its tokenizer ({', '.join(files)}) cannot be loaded: {reason}"
    known = {*(loaded.vocab_files_names or {}).values()}
    if known and not any((folder / name).exists() for name in known):
        return f"its tokenizer is {', '.join(files)}, in which there is no vocabulary"
    if getattr(loaded, "backend_tokenizer", None) is None:
        return f"its tokenizer is a {type(loaded).__name__}, written in Python"
    return loaded
