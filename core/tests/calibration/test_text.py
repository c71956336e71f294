"""Reading text and packing it into blocks."""

from __future__ import annotations

import json

import pytest
import torch
from anyblock.calibration.text import calibration_split, pack_text, pack_tokens, read_text, tokenize
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.errors import InputError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

quick = settings(deadline=None, derandomize=True, max_examples=60)


def test_text_file_comes_back_as_it_is(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("erste Zeile\r\nzweite – Zeile\n".encode())
    assert read_text(path) == "erste Zeile\r\nzweite – Zeile\n"


def test_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(str(path)) == "abc"


def test_jsonl_documents_are_joined(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\ntwo", "id": 1}\n\n{"text": "three"}\n')
    assert read_text(path) == "one\ntwo\n\nthree"


@pytest.mark.parametrize("line", ['{"text": 3}', '{"content": "x"}', '["text"]', "{broken"])
def test_bad_jsonl_names_file_and_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 2"):
        read_text(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt does not exist"):
        read_text(tmp_path / "nowhere.txt")


def test_folder_instead_of_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_empty_file(tmp_path, content):
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="holds no text"):
        read_text(path)


def test_other_encoding_names_the_byte(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("abcä".encode("latin-1"))
    with pytest.raises(InputError, match="byte 3 is 0xe4"):
        read_text(path)


@quick
@given(st.text(alphabet="ab \n", min_size=1, max_size=200), st.floats(0.05, 0.95))
def test_split_is_a_cut_at_a_line_border(text, fraction):
    try:
        calibration, evaluation = calibration_split(text, fraction)
    except InputError:
        assert not any(text[:i].strip() and text[i:].strip() for i in _nearest_borders(text, fraction))
        return
    assert calibration + evaluation == text
    assert calibration.endswith("\n")
    assert calibration.strip()
    assert evaluation.strip()


def _nearest_borders(text, fraction):
    target = round(len(text) * fraction)
    return {text.rfind("\n", 0, target) + 1, text.find("\n", target) + 1 or len(text)}


def test_split_is_near_the_fraction():
    text = "".join(f"line {index:04d}\n" for index in range(1000))
    calibration, evaluation = calibration_split(text)
    assert (calibration.count("\n"), evaluation.count("\n")) == (700, 300)


def test_one_line_cannot_be_split():
    with pytest.raises(InputError, match="no line border"):
        calibration_split("one line only")
    with pytest.raises(UsageError, match="fraction"):
        calibration_split("a\nb", 1.0)


@quick
@given(st.text(min_size=1, max_size=300), st.integers(2, 20))
def test_blocks_are_the_tokens_back_to_back(make_tokenizer, text, block_size):
    tokens = [0, *(byte_ids(text, make_tokenizer()))]
    if len(tokens) < block_size:
        with pytest.raises(InputError, match=rf"has {len(tokens)} tokens.*one block of {block_size}"):
            pack_text(text, make_tokenizer(), block_size)
        return
    blocks = pack_text(text, make_tokenizer(), block_size)
    assert blocks.dtype == torch.long
    assert blocks.shape == (len(tokens) // block_size, block_size)
    assert blocks.flatten().tolist() == tokens[: blocks.numel()]


def byte_ids(text, tokenizer):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("bos", [True, False])
def test_special_tokens_come_once_and_in_front_only(make_tokenizer, bos):
    ids = tokenize("abc", make_tokenizer(bos=bos, eos=True))
    assert ids.tolist() == [0] * bos + byte_ids("abc", make_tokenizer())


@pytest.mark.parametrize("max_tokens", [1, 64, 5_000, 100_000])
def test_max_tokens_gives_the_first_tokens_of_the_whole(tokenizer, max_tokens):
    text = "".join(f"line {index} of some text\n" for index in range(2_000))
    whole = tokenize(text, tokenizer)
    assert torch.equal(tokenize(text, tokenizer, max_tokens=max_tokens), whole[:max_tokens])
    if max_tokens >= 64:
        assert torch.equal(pack_text(text, tokenizer, 64, max_tokens=max_tokens), pack_tokens(whole[:max_tokens], 64))


def test_long_text_gives_no_warning_about_the_context(tokenizer, caplog):
    tokenize("x" * 1000, tokenizer)
    assert not caplog.records


def test_limits_are_checked(tokenizer):
    with pytest.raises(UsageError, match="max_tokens=3"):
        pack_text("abc", tokenizer, 4, max_tokens=3)
    with pytest.raises(UsageError, match="block size is 1"):
        pack_text("abc", tokenizer, 1)


@pytest.mark.shared
@pytest.mark.parametrize("model", ["stories260k", "tiny-qwen3moe-wt2"])
def test_a_trained_tokenizer_agrees_with_the_whole_text(shared, model):
    text = read_text(shared / "text" / "tinyshakespeare.txt")[:120_000]
    tokenizer = load_tokenizer(shared / "models" / model)
    whole = tokenizer(text, verbose=False)["input_ids"]
    assert tokenize(text, tokenizer).tolist() == whole
    for max_tokens in (100, 3_000, 20_000):
        assert tokenize(text, tokenizer, max_tokens=max_tokens).tolist() == whole[:max_tokens]
