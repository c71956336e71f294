"""JSON lines, and text that is not UTF-8."""

from __future__ import annotations

import json

import pytest
from anyblock.calibration.text import read_text
from anyblock.errors import InputError


def test_jsonl_documents_are_joined(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\ntwo", "id": 1}\n\n{"text": "three"}\n')
    text = read_text(path)
    assert str(text) == "one\ntwo\n\nthree"
    assert text.documents == ["one\ntwo", "three"]


@pytest.mark.parametrize("line", ['{"text": 3}', '{"content": "x"}', '["text"]', "{broken", '{"text": null}'])
def test_bad_jsonl_names_file_and_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 2"):
        read_text(path)


def test_other_encoding_names_the_byte(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("abcä".encode("latin-1"))
    with pytest.raises(InputError, match="byte 3 is 0xe4"):
        read_text(path)


def as_json_lines(documents, **options):
    return "".join(json.dumps({"text": document}, **options) + "\n" for document in documents)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\\u001c", "\\u000b"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_json_lines_end_where_json_says(tmp_path, mark, end):
    """`str.splitlines` also ends lines at characters that JSON may have within a string."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(f'{{"text": "one{mark}two"}}{end}{end}{{"text": "three"}}{end}'.encode())
    between = mark.encode().decode("unicode_escape") if mark.startswith("\\") else mark
    assert read_text(path).documents == [f"one{between}two", "three"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.NDJSON", "a.txt", "a.json", "a"])
def test_json_lines_are_read_under_any_name(tmp_path, name):
    path = tmp_path / name
    for documents in (["one, two", "three"], ["alone"]):
        path.write_text(as_json_lines(documents))
        assert read_text(path).documents == documents
        path.write_text(as_json_lines(documents).replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
        assert read_text(path).documents == documents


def test_half_a_surrogate_pair_is_refused_by_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(as_json_lines(["fine \N{GRINNING FACE}"]) + '{"text": "a\\ud83d"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: half of a surrogate pair, \\ud83d, at character 1"):
        read_text(path)
    path.write_text(as_json_lines(["fine \N{GRINNING FACE}"]))
    assert read_text(path).content == "fine \N{GRINNING FACE}"


@pytest.mark.parametrize("line", ['{"text": "a", "n": ' + "1" * 5000 + "}", '{"text": "a", "n": [1, 2.5, NaN]}'])
def test_numbers_of_any_length_are_skipped(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    assert read_text(path).content == "a"


def test_a_line_of_deep_brackets_is_an_error_of_its_own(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(as_json_lines(["fine"]) + "[" * 200_000)
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: not JSON"):
        read_text(path)
