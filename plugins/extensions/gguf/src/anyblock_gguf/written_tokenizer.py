"""The tokenizer of a GGUF file as a `tokenizer.json` and its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.errors import UnsupportedModelError

from anyblock_gguf.sentencepiece import BYTE_TOKENS, SPACE
from anyblock_gguf.splitting import pre_tokenizer
from anyblock_gguf.tokenizer import STRIPPING, expressed, loaded_tokenizer

if TYPE_CHECKING:
    from anyblock_gguf.reading import GgufFile

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
_KEYS: Final = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def write_tokenizer(file: GgufFile, config: Any, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` next to the `config.json`; nothing for a file without a tokenizer.

    Raises:
        UnsupportedModelError: the tokenizer is of a kind that is not read, or would not read text as llama.cpp does.
    """
    kind = file.fields.get("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return
    data = _sentencepiece(file) if kind == "llama" else _byte_level(file) if kind == "gpt2" else None
    if data is None:
        raise _refused(file, f"is of llama.cpp's kind {kind}")
    tokens: list[str] = file.fields["tokenizer.ggml.tokens"]
    ids = {name: file.fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in _KEYS.items()}
    stated: dict[str, Any] = {f"{name}_token": tokens[index] for name, index in ids.items() if index is not None}
    stated |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
    }
    if template := file.fields.get("tokenizer.chat_template"):
        stated["chat_template"] = template
    for name, content in (("tokenizer.json", data), ("tokenizer_config.json", stated)):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    loaded = loaded_tokenizer(folder)
    if isinstance(loaded, str):
        raise _refused(file, f"cannot be built: {loaded}")
    found = expressed(loaded.backend_tokenizer)
    if found.obstacles or (kind == "gpt2" and found.pre != file.fields["tokenizer.ggml.pre"]):
        raise _refused(file, f"would be read otherwise: {'; '.join(found.obstacles) or found.pre}")


def _byte_level(file: GgufFile) -> dict[str, Any]:
    name = file.fields.get("tokenizer.ggml.pre", "default")
    known = pre_tokenizer(name)
    if known is None:
        raise _refused(file, f"cuts text into words in a way ({name}) that is not known here")
    splitter, way = known
    pairs = [pair.split(" ") for pair in file.fields["tokenizer.ggml.merges"]]
    model = {"type": "BPE", "vocab": _vocabulary(file), "merges": pairs, "ignore_merges": way.whole}
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _whole(file, model, bos=way.whole, pre_tokenizer=splitter, decoder=decoder)


def _sentencepiece(file: GgufFile) -> dict[str, Any]:
    tokens, types = (file.fields[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    scores = dict(zip(tokens, file.fields["tokenizer.ggml.scores"], strict=True))
    vocabulary = _vocabulary(file)
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind in (_NORMAL, _USER_DEFINED, _UNUSED)]
    ordered = sorted(
        (token for token in plain if len(token) > 1 and token not in BYTE_TOKENS), key=lambda t: -scores[t]
    )
    pairs = [
        [token[:place], token[place:]]
        for token in ordered
        for place in range(1, len(token))
        if token[:place] in vocabulary and token[place:] in vocabulary
    ]
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    model = {
        "type": "BPE", "vocab": vocabulary, "merges": pairs, "unk_token": unknown, "fuse_unk": True, "byte_fallback": True,
    }  # fmt: skip
    front = file.fields.get("tokenizer.ggml.add_space_prefix", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    prepend, strip = {"type": "Prepend", "prepend": SPACE}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    steps = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *([strip] if front else [])]
    normalizer = {"type": "Sequence", "normalizers": [prepend, replace]} if front else replace
    return _whole(file, model, bos=True, normalizer=normalizer, decoder={"type": "Sequence", "decoders": steps})


def _vocabulary(file: GgufFile) -> dict[str, int]:
    """Return the tokens' numbers, without what only fills the embeddings up."""
    tokens, types = (file.fields[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    filling = {index for index, kind in enumerate(types) if kind == _UNUSED and tokens[index] == f"[PAD{index}]"}
    found = {token: index for index, token in enumerate(tokens) if index not in filling}
    if len(found) + len(filling) != len(tokens):
        raise _refused(file, "has a token twice")
    return found


def _whole(file: GgufFile, model: dict[str, Any], *, bos: bool, **parts: Any) -> dict[str, Any]:
    """Return a `tokenizer.json`.

    Args:
        file: the GGUF file.
        model: its BPE model.
        bos: whether llama.cpp puts the first token in front of a text where the file does not say so.
        parts: its normalizer, pre-tokenizer and decoder.
    """
    tokens, types = (file.fields[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    name = str(file.fields.get("general.name", "")).lower()
    strips = "phi-3" in name or "phi3" in name
    added = [
        {
            "id": index, "content": tokens[index], "single_word": False, "lstrip": False, "normalized": False,
            "rstrip": strips and tokens[index] not in STRIPPING, "special": kind != _USER_DEFINED,
        }
        for index, kind in enumerate(types)
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    around = []
    for kind, default in (("bos", bos), ("eos", False)):
        index = file.fields.get(f"tokenizer.ggml.{kind}_token_id")
        wanted = index is not None and file.fields.get(f"tokenizer.ggml.add_{kind}_token", default)
        around.append([(tokens[index], index)] if wanted else [])
    marks = {token: {"id": token, "ids": [index], "tokens": [token]} for side in around for token, index in side}
    before, after = ([{"SpecialToken": {"id": token, "type_id": 0}} for token, _ in side] for side in around)
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    template = {
        "type": "TemplateProcessing", "single": [*before, first, *after],
        "pair": [*before, first, *after, *before, second, *after], "special_tokens": marks,
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": None,
        "post_processor": template if marks else None, "model": model, **parts,
    }  # fmt: skip


def _refused(file: GgufFile, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the tokenizer of {file.path} {why}", hint="use the Hugging Face checkpoint that the file was made from"
    )
