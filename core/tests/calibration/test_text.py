"""Reading text."""

from __future__ import annotations

import json

import pytest
from anyblock.calibration.text import Text, calibration_split, read_text
from anyblock.errors import InputError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

quick = settings(deadline=None, derandomize=True, max_examples=60)


def test_text_file_comes_back_as_it_is(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("erste Zeile\r\nzweite – Zeile\n".encode())
    assert read_text(path) == Text("erste Zeile\r\nzweite – Zeile\n")


def test_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(str(path)) == Text("abc")


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


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt does not exist"):
        read_text(tmp_path / "nowhere.txt")


def test_a_folder_without_text(tmp_path):
    with pytest.raises(InputError, match="has no file of text"):
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
        calibration, evaluation = (str(part) for part in calibration_split(Text(text), fraction))
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
    text = Text("".join(f"line {index:04d}\n" for index in range(1000)))
    calibration, evaluation = (str(part) for part in calibration_split(text))
    assert (calibration.count("\n"), evaluation.count("\n")) == (700, 300)


def test_one_line_cannot_be_split():
    with pytest.raises(InputError, match="no line border"):
        calibration_split(Text("one line only"))
    with pytest.raises(UsageError, match="fraction"):
        calibration_split(Text("a\nb"), 1.0)


@quick
@given(
    st.lists(st.text(alphabet="ab \n", min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=6), st.data()
)
def test_a_cut_keeps_documents_apart(documents, data):
    starts, place = [], 0
    for document in documents[:-1]:
        place += len(document) + 2
        starts.append(place)
    text = Text("\n\n".join(documents), tuple(starts))
    assert text.documents == documents
    cut = data.draw(st.integers(0, len(text.content)))
    before, after = text.cut(cut)
    assert before.content + after.content == text.content
    found = before.documents + after.documents
    assert "".join("".join(found).split()) == "".join("".join(documents).split())
    for part in found:  # none reaches over a border between two documents
        assert any(part.strip() in document for document in documents)


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
