"""Packing text into windows that begin as the model's own tokenizer begins a text."""

from __future__ import annotations

import json

import pytest
import torch
from anyblock.calibration.batches import Batches
from anyblock.calibration.packing import IGNORED, Around, pack_text, pack_tokens, require_varied, tokenize
from anyblock.calibration.text import Text, read_text
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.errors import InputError, UsageError
from anyblock.modeling.runner import check_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

quick = settings(deadline=None, derandomize=True, max_examples=60)
BOS, EOS = 0, 1


def byte_ids(text, tokenizer):
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


@quick
@given(st.text(min_size=1, max_size=300), st.integers(2, 20), st.booleans())
def test_every_window_begins_as_the_tokenizer_begins_a_text(make_tokenizer, text, block_size, bos):
    tokenizer = make_tokenizer(bos=bos)
    tokens = byte_ids(text, tokenizer)
    size = block_size - bos
    if len(tokens) < size:
        with pytest.raises(InputError, match=rf"has {len(tokens)} tokens.*one block of {block_size}"):
            pack_text(text, tokenizer, block_size)
        return
    blocks = pack_text(text, tokenizer, block_size)
    assert blocks.dtype == torch.long
    assert blocks.shape == (len(tokens) // size, block_size)
    assert (blocks[:, :bos] == BOS).all()
    assert blocks[:, bos:].flatten().tolist() == tokens[: len(blocks) * size]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("flag", [True, False, None])
def test_what_the_tokenizer_does_counts_and_not_what_its_settings_say(make_tokenizer, tmp_path, bos, flag):
    """`add_bos_token` in tokenizer_config.json says nothing of what the tokenizer's post-processor does."""
    make_tokenizer(bos=bos, eos=True).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | ({} if flag is None else {"add_bos_token": flag})))
    tokenizer = load_tokenizer(tmp_path)
    assert Around.of(tokenizer) == Around((BOS,) if bos else (), (EOS,))
    assert pack_text("abcdef", tokenizer, 4)[:, 0].tolist() == ([BOS] * 2 if bos else byte_ids("a", tokenizer))


def test_a_tokenizer_that_spells_the_text_in_two_ways_is_refused(make_tokenizer):
    class Odd:
        def __call__(self, text, *, add_special_tokens, verbose):
            return {"input_ids": [0, 5, 6] if add_special_tokens else [7]}

    with pytest.raises(InputError, match=r"\[0, 5, 6\] with special tokens and as \[7\] without"):
        Around.of(Odd())


@pytest.mark.parametrize(
    ("bos", "eos", "between"),
    [(True, False, [BOS]), (True, True, [EOS, BOS]), (False, True, [EOS]), (False, False, None)],
)
def test_documents_are_apart_as_the_tokenizer_says(make_tokenizer, tmp_path, bos, eos, between):
    tokenizer = make_tokenizer(bos=bos, eos=eos)
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("one\ntwo", "", "three")))
    first, second = byte_ids("one\ntwo", tokenizer), byte_ids("three", tokenizer)
    if between is None:  # as text would be: an empty line stands between documents
        between = byte_ids("\n\n", tokenizer)
    assert tokenize(read_text(path), tokenizer).tolist() == [*first, *between, *second]
    plain = tmp_path / "plain.txt"
    plain.write_text("one\ntwo\n\nthree")
    assert tokenize(read_text(plain), tokenizer).tolist() == byte_ids("one\ntwo\n\nthree", tokenizer)


def test_what_the_tokenizer_puts_there_is_no_label(make_tokenizer):
    tokenizer = make_tokenizer(bos=True, eos=True)
    text = Text("ab\n\ncdef", (4,))
    ids = pack_text(text, tokenizer, 5)
    a, b, *rest = byte_ids("abcdef", tokenizer)
    assert ids.tolist() == [[BOS, a, b, EOS, BOS], [BOS, *rest]]
    batches = Batches(ids, around=Around.of(tokenizer))
    assert batches.labels.tolist() == [[IGNORED, a, b, IGNORED, IGNORED], [IGNORED, *rest]]
    assert batches.bos is True
    assert Batches(ids).labels.tolist() == ids.tolist()
    assert Batches(ids).bos is None


@pytest.mark.parametrize("max_tokens", [1, 64, 5_000, 100_000])
@pytest.mark.parametrize("bos", [True, False])
def test_max_tokens_gives_the_first_tokens_of_the_whole(make_tokenizer, max_tokens, bos):
    tokenizer = make_tokenizer(bos=bos, eos=bos)
    text = Text("".join(f"line {index} of some text\n" for index in range(2_000)))
    documents = [text.content[start : start + 700] for start in range(0, len(text.content), 700)]
    joined = Text("\n\n".join(documents), tuple(702 * number for number in range(1, len(documents))))
    for given_text in (text, joined):
        whole = tokenize(given_text, tokenizer)
        assert torch.equal(tokenize(given_text, tokenizer, max_tokens=max_tokens), whole[:max_tokens])
        if max_tokens >= 64:
            blocks = pack_text(given_text, tokenizer, 64, max_tokens=max_tokens)
            assert torch.equal(blocks, pack_tokens(whole, 64, Around.of(tokenizer))[: max_tokens // 64])


def test_long_text_gives_no_warning_about_the_context(tokenizer, caplog):
    tokenize("x" * 1000, tokenizer)
    assert not caplog.records


def test_limits_are_checked(tokenizer, make_tokenizer):
    with pytest.raises(UsageError, match="max_tokens=3"):
        pack_text("abc", tokenizer, 4, max_tokens=3)
    for one in (tokenizer, make_tokenizer(bos=False)):
        with pytest.raises(UsageError, match="block size is 1"):
            pack_text("abc", one, 1)
    assert pack_text("abc", tokenizer, 2).shape == (3, 2)  # from BOS alone the one token is predicted


def test_a_text_of_one_token_is_seen_through_what_stands_around_it(make_tokenizer):
    tokenizer = make_tokenizer(bos=True)
    ids, around = pack_text("aaaaaaaaaaaa", tokenizer, 4), Around.of(tokenizer)
    labels = around.labels(ids)
    require_varied(ids, "the windows")
    with pytest.raises(InputError, match="12 of the 12 tokens of the text"):
        require_varied(labels[labels != IGNORED], "the text")


def test_a_token_without_an_embedding_is_named(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["First"])
    ids = pack_text("First Citizen", tokenizer, 4)
    check_tokens(ids, 259, tokenizer=tokenizer)
    check_tokens(ids, None)
    with pytest.raises(InputError, match=r"token id 258 \('First'\) is outside the model's vocabulary of 258"):
        check_tokens(ids, 258, tokenizer=tokenizer)


@pytest.mark.shared
@pytest.mark.parametrize("model", ["stories260k", "tiny-qwen3moe-wt2"])
def test_a_trained_tokenizer_agrees_with_the_whole_text(shared, model):
    text = read_text(shared / "text" / "tinyshakespeare.txt").content[:120_000]
    tokenizer = load_tokenizer(shared / "models" / model)
    whole = tokenizer(text, verbose=False)["input_ids"]
    front = list(Around.of(tokenizer).before)
    assert (front + tokenize(text, tokenizer).tolist()) == whole
    for max_tokens in (100, 3_000, 20_000):
        assert tokenize(text, tokenizer, max_tokens=max_tokens).tolist() == whole[len(front) :][:max_tokens]
