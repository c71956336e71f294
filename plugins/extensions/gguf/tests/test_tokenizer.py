"""Tokenizers in the shapes of published ones: llama.cpp reads a text as transformers does."""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import textwrap
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyblock import export_child
from anyblock.errors import UnsupportedModelError
from anyblock_gguf.reading import write_checkpoint
from anyblock_tests.small_llamas import child_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import generate_merges

SENTENCES = """
Straße und Grüße, naïve café, crème brûlée à la carte. Ёлка зелёная, всё ещё стоит. 我想在apple工作1314151天～ 日本語の文章です。
한국어 문장입니다. ٣٤٥ مرحبا بالعالم. हिन्दी में लिखा हुआ। 🚀🦙👩‍👩‍👧 12 345 6,789 3.14159 https://example.org/a?b=c&d=e
don't I'll we've it's
"""
CORPUS = [
    SENTENCES * 5,
    inspect.getsource(argparse),
    inspect.getsource(textwrap),
    "    " * 200,
    "\n\n\n" * 50,
    "\t\t" * 50,
]
TEXTS = [
    "", "a", "Once upon a time there was a little dog.",
    "two  spaces   and    four\tand\na line \n\n  \r\n end  ", "\n\n\n\n\n\n\n",
    "I've told you; we'll see. DON'T! It'S he'd 'll", "3.14159 and 1234567890, 2nd, x2, 1,000",
    "naïve café — Straße, Ёлка, 我想在apple工作1314151天～, ٣٤٥, 🚀🦙 👩‍👩‍👧‍👦",
    "def f(x):\n    if x > 0:\n        return  {'a': x}\n",
    SENTENCES, "\u00a0no\u2003break\u200bzero", "\x00\x01\x7f", "a" * 70, "ﬁ ½ Å Ω K",
]  # fmt: skip
DECOMPOSED = ["e\u0301a\u0308", unicodedata.normalize("NFD", SENTENCES), "한국어"]
MARKED = ["<s>", "</s>", "<eos>", "<end_of_turn>", "<|im_end|>", "<|user|>", "<|eot_id|>", "<think>"]
COMMON = st.sampled_from(
    [
        "a",
        "e",
        "the",
        "in",
        "er",
        "ing",
        " ",
        "  ",
        "\n",
        "\t",
        "'",
        "1",
        "42",
        ".",
        "ß",
        "é",
        "我",
        "🚀",
        "<",
        ">",
        *MARKED,
    ]
)
ANYTHING = st.lists(st.one_of(COMMON, st.text(max_size=5)), max_size=20).map("".join)
Texts = Callable[[str], bool]
Build = Callable[[], Tokenizer]


@functools.cache
def learned(size: int, *, byte_level: str) -> dict[str, Any]:
    """Return the model of a BPE tokenizer that was trained on `CORPUS`, as in a tokenizer.json."""
    backend = Tokenizer(models.BPE())
    if byte_level:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(byte_level), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        alphabet = []
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    return model


def sentencepiece(special: list[str], runs: list[str]) -> models.BPE:
    """Return a model as transformers makes it of a `tokenizer.model`: every pair whose sum is in the vocabulary is joined."""
    model = learned(700, byte_level="")
    letters = [token for token in model["vocab"] if len(token) == 1]
    joined = ["".join(pair) for pair in model["merges"]]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *runs, *joined, *letters]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = generate_merges(vocabulary, {piece: -float(index) for piece, index in vocabulary.items()})
    return models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def template(token: str, index: int) -> Any:
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, index)]
    )


def added(backend: Tokenizer, *contents: str, special: bool = True, **more: bool) -> None:
    from tokenizers import AddedToken

    backend.add_tokens([AddedToken(content, special=special, normalized=False, **more) for content in contents])


def llama2(splitter: Any = None) -> Tokenizer:
    """Llama 2, Mistral 7B; their fast tokenizers have either these normalizers or the Metaspace of newer transformers."""
    backend = Tokenizer(sentencepiece(["<unk>", "<s>", "</s>"], ["▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁"]))
    added(backend, "<unk>", "<s>", "</s>")
    if splitter is None:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = splitter
    backend.post_processor = template("<s>", 1)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def phi3() -> Tokenizer:
    backend = llama2()
    added(backend, "<|endoftext|>")
    added(backend, "</s>", special=False, rstrip=True)
    added(backend, "<|assistant|>", "<|end|>", "<|user|>", rstrip=True)
    return backend


def gemma() -> Tokenizer:
    """Gemma's runs of spaces and newlines are tokens that are looked for in the text itself."""
    runs = ["\n" * length for length in range(2, 12)] + ["▁" * length for length in range(2, 12)]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    backend = Tokenizer(sentencepiece(special, [*runs, "\n"]))
    added(backend, *special)
    added(backend, *runs, special=False)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.post_processor = template("<bos>", 2)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return backend


ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(pattern: str, *special: str, nfc: bool = False, whole: bool = False, first: str = "") -> Tokenizer:
    """Qwen, Llama 3, SmolLM3, OLMo 2 and 3, gpt-oss, Mistral NeMo."""
    model = learned(900, byte_level=pattern)
    merges = [tuple(pair) for pair in model["merges"]]
    backend = Tokenizer(models.BPE(model["vocab"], merges, ignore_merges=whole))
    if nfc:
        backend.normalizer = normalizers.NFC()
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_])
    backend.post_processor = template(first, 900) if first else processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    added(backend, *special)
    added(backend, "<think>", "</think>", special=False)
    return backend


def everything(text: str) -> bool:
    return True


def composed(text: str) -> bool:
    return unicodedata.normalize("NFC", text) == text


def in_ascii(text: str) -> bool:
    return text.isascii()


def within(text: str) -> bool:
    """Text without a leading space, and without special tokens inside."""
    return not text.startswith((" ", "▁")) and not any(mark in text for mark in ("<unk>", "<s>", "</s>"))


CASES: dict[str, tuple[Build, str, tuple[str, str], str, Texts]] = {
    "llama 2": (llama2, "TokenizersBackend", ("llama", "default"), "", everything),
    "llama 2, metaspace": (
        lambda: llama2(pre_tokenizers.Metaspace(prepend_scheme="always", split=False)),
        "TokenizersBackend", ("llama", "default"), "a space is put in front of text that begins with one", within,
    ),
    "llama 2, class": (llama2, "LlamaTokenizer", ("llama", "default"), "after special tokens, too", within),
    "phi 3": (phi3, "TokenizersBackend", ("llama", "default"), "", everything),
    "gemma": (gemma, "GemmaTokenizer", ("llama", "default"), "", everything),
    "qwen": (
        lambda: byte_level(QWEN2, "<|endoftext|>", "<|im_start|>", "<|im_end|>", nfc=True),
        "Qwen2Tokenizer", ("gpt2", "qwen2"), "NFC", composed,
    ),
    "llama 3": (
        lambda: byte_level(LLAMA3, "<|begin_of_text|>", "<|eot_id|>", whole=True, first="<|begin_of_text|>"),
        "TokenizersBackend", ("gpt2", "llama-bpe"), "", everything,
    ),
    "olmo 3": (lambda: byte_level(LLAMA3, "<|endoftext|>"), "TokenizersBackend", ("gpt2", "dbrx"), "", everything),
    "gpt-oss": (
        lambda: byte_level(O200K, "<|startoftext|>", "<|return|>", whole=True),
        "TokenizersBackend", ("gpt2", "gpt-4o"), "beyond ASCII", in_ascii,
    ),
    "mistral nemo": (
        lambda: byte_level(TEKKEN, "<s>", "</s>", whole=False, first="<s>"),
        "TokenizersBackend", ("gpt2", "tekken"), "beyond ASCII", in_ascii,
    ),
}  # fmt: skip
MARKS = {
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>"),
    "eos_token": ("</s>", "<eos>", "<|endoftext|>", "<|eot_id|>"),
}


def written(backend: Tokenizer, folder: Path, kind: str = "TokenizersBackend") -> Path:
    """Write a tokenizer as it is published: a tokenizer.json and a tokenizer_config.json."""
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    known = backend.get_vocab()
    config = {"tokenizer_class": kind, "model_max_length": 256, "clean_up_tokenization_spaces": False}
    config |= {key: token for key, tokens in MARKS.items() for token in tokens if token in known}
    config |= {"unk_token": "<unk>"} if "<unk>" in known else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def export(backend: Tokenizer, folder: Path, kind: str = "TokenizersBackend") -> tuple[Path, Path, list[str]]:
    """Return a child with this tokenizer, its GGUF file's folder and what the export warned of."""
    size = len(backend.get_vocab()) + 3
    child = child_of(folder, {"config": {"vocab_size": size}}, written(backend, folder / "tokenizer", kind))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = export_child(child, folder / "out", "gguf")
    return child, out, [str(each.message) for each in caught if str(each.message).startswith("in llama.cpp")]


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_reads_what_transformers_reads(name, tmp_path, llama_cpp):
    import gguf

    build, kind, (model, pre), note, equal = CASES[name]
    child, out, said = export(build(), tmp_path, kind)
    assert len(said) == bool(note)
    assert note in "".join(said)
    fields = gguf.GGUFReader(next(out.iterdir())).fields
    assert (fields["tokenizer.ggml.model"].contents(), fields["tokenizer.ggml.pre"].contents()) == (model, pre)
    prefixed = model == "llama" and fields["tokenizer.ggml.add_space_prefix"].contents()
    tokenizer = AutoTokenizer.from_pretrained(child)
    marks = [token for token in tokenizer.get_added_vocab() if not token.isspace() and "▁" not in token]

    def compare(texts: list[str]) -> None:
        texts = [text for text in texts if equal(text)]
        found = llama_cpp([out], texts=texts)
        for index, text in enumerate(texts):
            assert found[f"text_0_{index}"].tolist() == tokenizer(text)["input_ids"], text
            if not any(mark in text for mark in marks):
                read = found[f"bytes_0_{index}"].tobytes().decode()
                assert read.removeprefix(" " if prefixed else "") == text

    compare([*TEXTS, *DECOMPOSED, *(f"{mark} a{mark}\n{mark}" for mark in marks), "".join(marks)])

    @settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.lists(ANYTHING, min_size=200, max_size=200))
    def anything(texts: list[str]) -> None:
        compare(texts)

    anything()

    write_checkpoint(next(out.iterdir()), tmp_path / "read")
    again = AutoTokenizer.from_pretrained(tmp_path / "read")
    for text in filter(equal, [*TEXTS, *(f"{mark} a{mark}" for mark in marks)]):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"], text
        assert again.decode(again(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"]), text


def test_a_tokenizer_model_alone(tmp_path, llama_cpp):
    """A file of sentencepiece itself, which transformers reads with its packages."""
    pieces = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    (tmp_path / "tokenizer").mkdir()
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter(" ".join(CORPUS).splitlines()), model_prefix=str(tmp_path / "tokenizer" / "tokenizer"),
        model_type="bpe", vocab_size=600, byte_fallback=True, character_coverage=0.98, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
    )  # fmt: skip
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    child = child_of(tmp_path, {"config": {"vocab_size": 600}}, tmp_path / "tokenizer")
    with pytest.warns(UserWarning, match="a space is put in front of text that begins with one"):
        out = export_child(child, tmp_path / "out", "gguf")
    texts = [text for text in [*TEXTS, *DECOMPOSED] if within(text)]
    found, tokenizer = llama_cpp([out], texts=texts), AutoTokenizer.from_pretrained(child)
    for index, text in enumerate(texts):
        assert found[f"text_0_{index}"].tolist() == tokenizer(text)["input_ids"], text


def changed(backend: Tokenizer, **parts: Any) -> Tokenizer:
    """Return the tokenizer with other parts; those of the model are changed one by one."""
    data = json.loads(backend.to_str())
    data["model"] |= parts.pop("model", {})
    return Tokenizer.from_str(json.dumps(data | parts))


def without(backend: Tokenizer, *, merges: int = 0, byte: str = "") -> Tokenizer:
    """Return the tokenizer without its last merges, or without a byte's token."""
    model = json.loads(backend.to_str())["model"]
    vocabulary = {token: index for token, index in model["vocab"].items() if token != byte}
    return changed(backend, model={"merges": model["merges"][: len(model["merges"]) - merges], "vocab": vocabulary})


def marked(build: Build, content: str, **flags: bool) -> Tokenizer:
    backend = build()
    added(backend, content, **flags)
    return backend


QWEN = functools.partial(byte_level, QWEN2, "<|endoftext|>")
TWICE = {
    "type": "TemplateProcessing", "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}] * 2 + [{"Sequence": {"id": "A", "type_id": 0}}],
}  # fmt: skip
REFUSED: dict[str, Build] = {
    "the type WordLevel": lambda: Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
    "the type Unigram": lambda: Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], 0, byte_fallback=False)),
    r"normalizes text \(NFKC\)": lambda: changed(QWEN(), normalizer={"type": "NFKC"}),
    "has end_of_word_suffix": lambda: changed(QWEN(), model={"end_of_word_suffix": "</w>"}),
    "splits text in a way": lambda: changed(QWEN(), pre_tokenizer={"type": "Whitespace"}),
    "ignore_merges=True, unlike llama.cpp's qwen2, and its merges do not make": lambda: without(QWEN(whole=True), merges=1),
    "more than one token in front": lambda: changed(llama2(), post_processor=TWICE),
    "'<x>' takes the spaces after it": lambda: marked(llama2, "<x>", rstrip=True),
    "'<x>' takes spaces in front of it": lambda: marked(QWEN, "<x>", lstrip=True),
    "'<x>' takes spaces in front of it, or stands for whole words": lambda: marked(gemma, "<x>", single_word=True),
    "lacks 1 tokens for bytes, such as <0x41>": lambda: without(llama2(), byte="<0x41>"),
    "ignore_merges=True, which": lambda: changed(llama2(), model={"ignore_merges": True}),
    "does not join": lambda: without(llama2(), merges=1),
    r"prepares text in a way .* \(Lowercase\)": lambda: changed(llama2(), normalizer={"type": "Lowercase"}),
    "splits text at spaces, and '▁▁'": lambda: llama2(pre_tokenizers.Metaspace(prepend_scheme="always", split=True)),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(reason, tmp_path):
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        export(REFUSED[reason](), tmp_path)
    assert "transformers" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_token_that_is_looked_for_in_prepared_text_is_refused(tmp_path):
    backend = llama2()
    backend.add_tokens(["wordlike"])
    with pytest.raises(UnsupportedModelError, match="looks for 'wordlike' in text to which spaces were added"):
        export(backend, tmp_path)


def test_merges_at_several_ranks_are_noted(tmp_path):
    """As transformers writes them where several pieces have one score, Gemma's own for runs of spaces for instance."""
    backend = gemma()
    merges = json.loads(backend.to_str())["model"]["merges"]
    twice = next(index for index, pair in enumerate(merges) if "".join(pair) == "▁▁▁")
    _, _, said = export(
        changed(backend, model={"merges": [*merges[:twice], *merges[twice + 1 :], merges[twice]]}), tmp_path
    )
    assert "such as '▁▁▁'" in said[0]


def test_ignored_merges_that_change_nothing_are_accepted(tmp_path):
    assert not export(QWEN(whole=True), tmp_path)[2]


def test_files_without_a_vocabulary_are_refused(tmp_path):
    child, _, _ = export(QWEN(), tmp_path)
    (child / "tokenizer.json").write_text("{}")
    with pytest.raises(
        UnsupportedModelError, match=r"its tokenizer \(tokenizer.json, tokenizer_config.json\) cannot be loaded"
    ):
        export_child(child, tmp_path / "again", "gguf")
    (child / "tokenizer.json").rename(child / "other.json")
    with pytest.raises(UnsupportedModelError, match="its tokenizer"):
        export_child(child, tmp_path / "again", "gguf")
    assert not (tmp_path / "again").exists()


def test_tokens_beyond_the_embeddings_are_refused(tmp_path):
    backend = QWEN()
    size = len(backend.get_vocab()) - 2
    child = child_of(tmp_path, {"config": {"vocab_size": size}}, written(backend, tmp_path / "tokenizer"))
    with pytest.raises(UnsupportedModelError, match="2 tokens of its tokenizer have no embedding"):
        export_child(child, tmp_path / "out", "gguf")
