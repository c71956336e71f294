"""Reading text."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "one"}\n'),
        ("a.txt", b'[{"text": "one"}]'),
        ("a.csv", b"text,id\none,1\n"),
        ("a.txt.gz", b"\x1f\x8b\x08"),
        ("a.txt", "abc\u00e4".encode("latin-1")),
        ("a.txt", b"a\0b"),
    ],
)
def test_core_alone_reads_plain_text_and_says_what_reads_more(tmp_path, monkeypatch, name, content):
    monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "anyblock-data")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="is not plain text") as caught:
        read_text(tmp_path / name)
    assert caught.value.hint == "python -m pip install anyblock-data"
    (tmp_path / "plain.md").write_text("# A heading\n\nand text\n")
    assert read_text(tmp_path / "plain.md") == Text("# A heading\n\nand text\n")
    (tmp_path / "lyrics.txt").write_text("[Chorus]\n<3 all night {long}\n")
    assert read_text(tmp_path / "lyrics.txt") == Text("[Chorus]\n<3 all night {long}\n")
    with pytest.raises(InputError):
        read_text(tmp_path / "plain.md", field="text")
