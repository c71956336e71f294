"""Text in other formats is read; what is not text is refused by what its bytes are, with advice that makes text of it."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from anyblock.calibration.text import read_text
from anyblock.errors import InputError

PARAGRAPHS = [
    "First Citizen:\nBefore we proceed any further, hear me speak.",
    "All:\nSpeak, speak.",
    'He said: "Rather to die", and – after a while – "than to famish".',
    "Let us kill him; and we'll have corn at our own price.\nIs't a verdict?",
    "One word,\tgood citizens.",
    "We are accounted poor citizens, the patricians good.",
] * 4
TEXT = "\n\n".join(PARAGRAPHS) + "\n"


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert str(path) in caught.value.what
    return caught.value


def followed(path: Path, change: Callable[[str], str] = str) -> str:
    """Run the command of the error as a user would, in the file's folder, and read what it writes."""
    _, _, command = refused(path).hint.partition("with: ")
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    bin_folder = path.parent.parent / "bin"
    bin_folder.mkdir(exist_ok=True)
    python = bin_folder / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -X utf8 "$@"\n')
        python.chmod(0o755)
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(["sh", "-c", change(command)], capture_output=True, text=True, env=environment, check=False)
    assert not done.stderr, (command, done.stderr)
    (new,) = set(path.parent.iterdir()) - before.keys()
    assert all(file.read_bytes() == content for file, content in before.items())
    return read_text(new).content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name a shell has to be given in quotes, with the original that advice must not overwrite."""
    path = tmp_path / "my texts"
    path.mkdir()
    (path / "t.txt").write_text(TEXT, encoding="utf-8")
    return path


def tar(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("t.txt")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def zipped(name: str, content: bytes | str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def by_tool(*command: str) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    return pack


def zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").compress(data))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("t.txt.gz", gzip.compress),
        ("u.txt", gzip.compress),
        ("t.txt.xz", lzma.compress),
        ("t.txt.bz2", bz2.compress),
        ("t.txt.zst", zstd),
        ("twice.gz", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:])),
    ],
)
def test_compressed_files_are_read(folder: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = folder / name
    path.write_bytes(pack(TEXT.encode()))
    assert read_text(path).content == TEXT
    path.write_bytes(pack(TEXT.encode())[:-9])
    assert "breaks off or is damaged" in refused(path).what
    path.write_bytes(pack(json.dumps(RECORDS).encode()))
    assert read_text(path).documents == PARAGRAPHS


@pytest.mark.parametrize(
    ("name", "pack", "says"),
    [
        ("t.txt.lz4", by_tool("lz4", "-c"), "is compressed with lz4"),
        ("t.tar", tar, "is a tar archive"),
        ("t.zip", lambda data: zipped("t.txt", data), "is a zip archive"),
    ],
)
def test_packed_files(folder: Path, name: str, pack: Callable[[bytes], bytes], says: str) -> None:
    path = folder / name
    path.write_bytes(pack(TEXT.encode()))
    assert says in refused(path).what
    assert followed(path) == TEXT


@pytest.mark.parametrize(
    "encoding",
    ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-16-be mark", "utf-32-be mark"],
)
@pytest.mark.parametrize("text", [TEXT, "人之初，性本善。\n性相近，習相遠。\n" * 9], ids=["english", "chinese"])
def test_wide_encodings(folder: Path, encoding: str, text: str) -> None:
    codec, _, mark = encoding.partition(" ")
    path = folder / "a.txt"
    path.write_bytes((("\ufeff" if mark else "") + text).encode(codec))
    assert f"is text in UTF-{codec[4:6]}" in refused(path).what
    assert followed(path) == text
    garbage = path.read_bytes().decode("latin-1").encode()
    (folder / "g.txt").write_bytes(garbage)
    refused(folder / "g.txt")


@pytest.mark.parametrize(
    ("encoding", "text", "stands_for"),
    [
        ("windows-1252", "Ein schöner Tag, „gewiß“.\nÀ la carte, déjà vu.\n" * 9, None),
        ("shift_jis", "吾輩は猫である。名前はまだ無い。\n" * 9, "SHIFT_JIS"),
        ("gb18030", "人之初，性本善。\n" * 9, "GB18030"),
        ("koi8-r", "Все счастливые семьи похожи друг на друга.\n" * 9, "KOI8-R"),
        ("iso2022_jp", "吾輩は猫である。名前はまだ無い。\n" * 9, None),
    ],
)
def test_other_encodings(folder: Path, encoding: str, text: str, stands_for: str | None) -> None:
    path = folder / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert followed(path, lambda command: command.replace("ENCODING", stands_for or "")) == text


@pytest.mark.parametrize(
    "data",
    [("déjà vu, – ä ö ü.\n" * 30).encode()[:-4] + b"\xe2\x80", ("déjà vu, – ä ö ü.\n" * 30).encode() + b"\xff\n"],
)
def test_text_that_is_utf8_but_for_a_few_bytes(folder: Path, data: bytes) -> None:
    path = folder / "cut.txt"
    path.write_bytes(data)
    assert "is not UTF-8: byte" in refused(path).what
    assert followed(path) == data.decode(errors="ignore")


def test_a_few_nuls_go_away(folder: Path) -> None:
    path = folder / "a.txt"
    path.write_text(TEXT + "a\0b\n", encoding="utf-8")
    assert f"has a NUL at character {len(TEXT) + 1}" in refused(path).what
    assert followed(path) == TEXT + "ab\n"


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table documents (id integer, text text)")
        connection.executemany("insert into documents values (?, ?)", enumerate(PARAGRAPHS))


def arrow_table(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"id": range(len(PARAGRAPHS)), "text": PARAGRAPHS})
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    elif path.suffix == ".orc":
        pytest.importorskip("pyarrow.orc").write_table(table, path)
    elif path.suffix == ".feather":
        pytest.importorskip("pyarrow.feather").write_feather(table, path)
    else:
        kind = pyarrow.ipc.new_stream if path.suffix == ".arrow" else pyarrow.ipc.new_file
        with kind(path, table.schema) as writer:
            writer.write_table(table)


def word_document(path: Path) -> None:
    lines = "".join(f"<w:p><w:r><w:t>{line}</w:t></w:r></w:p>" for line in ("one &amp; two", "three"))
    path.write_bytes(zipped("word/document.xml", f"<?xml version='1.0'?><w:document>{lines}</w:document>"))


@pytest.mark.parametrize("name", ["d.parquet", "d.feather", "d.arrow", "d.ipc"])
def test_tables_of_columns_are_read(folder: Path, name: str) -> None:
    path = folder / name
    arrow_table(path)
    assert read_text(path).documents == PARAGRAPHS
    assert read_text(path).notes == (f"{path}: {FORMATS[path.suffix]}, {len(PARAGRAPHS)} documents from 'text'",)
    other = path.with_suffix(".txt")
    other.write_bytes(path.read_bytes())
    assert read_text(other).documents == PARAGRAPHS
    with pytest.raises(InputError, match=r"row 1: no string under 'id'"):
        read_text(path, field="id")
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b"xx" + whole[42 : len(whole) // 2] + whole[-6:])
    assert "breaks off or is damaged" in refused(path).what


FORMATS = {".parquet": "Parquet", ".feather": "Arrow", ".ipc": "Arrow", ".arrow": "Arrow stream"}


@pytest.mark.parametrize(
    ("name", "write", "says", "expected"),
    [
        ("d.orc", arrow_table, "is an ORC table", PARAGRAPHS),
        ("d.db", database, "is an SQLite database", PARAGRAPHS),
        ("d.docx", word_document, "is a Word document", ["one & two\nthree\n\n"]),
    ],
)
def test_tables_and_documents(
    folder: Path, name: str, write: Callable[[Path], None], says: str, expected: list[str]
) -> None:
    path = folder / name
    write(path)
    assert says in refused(path).what
    assert followed(path) == "\n\n".join(expected)
    other = path.with_suffix(".txt")
    other.write_bytes(path.read_bytes())
    assert says in refused(other).what


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickle.dumps(PARAGRAPHS), "is a Python pickle"),
        (pickle.dumps(PARAGRAPHS, protocol=0), "is a Python pickle"),
        (pickle.dumps({"text": PARAGRAPHS}, protocol=1), "is a Python pickle"),
        (zipped("archive/data.pkl", pickle.dumps(PARAGRAPHS)), "is a PyTorch file"),
        (zipped("[Content_Types].xml", "<x/>"), "is a document or a book"),
        (b"%PDF-1.4\n1 0 obj << /Length 3 >> stream\nabc\nendstream endobj\n", "is a PDF"),
        (
            b"{\\rtf1\\ansi First Citizen:\\par Before we proceed any further, hear me speak.}",
            "is a document in the rich",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is a document of Microsoft Office"),
        (b"GGUF\x03\x00\x00\x00" + bytes(600), "is a GGUF file"),
        ((40).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [1]}}   ' + bytes(4), "is a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a Git LFS pointer"),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 9, "is not text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "is not text"),
        (bytes(range(256)) * 9, "is not text"),
        (bytes(range(1, 128)) * 9, "is not text: 225 of its 1,143 characters are control"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_no_text_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert says in refused(path).what
    assert refused(path).hint
    path.write_bytes(data.decode("latin-1").encode())  # what an `iconv -f LATIN1` makes of it
    refused(path)
    path.write_text(data.decode(errors="replace"))
    refused(path)


RECORDS = [{"id": number, "text": paragraph} for number, paragraph in enumerate(PARAGRAPHS)]
ALPACA = [{"instruction": paragraph, "input": "", "output": "Yes."} for paragraph in PARAGRAPHS]
CHATS = [
    {"id": "1", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": p}]}
    for p in PARAGRAPHS
]
SHARED_CHATS = [{"conversations": [{"from": "human", "value": paragraph}]} for paragraph in PARAGRAPHS]
JOINED = "\n\n".join(PARAGRAPHS)


@pytest.mark.parametrize("name", ["d.json", "d.txt", "d.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (PARAGRAPHS, PARAGRAPHS),
        (RECORDS, PARAGRAPHS),
        (ALPACA, [f"{paragraph}\n\nYes." for paragraph in PARAGRAPHS]),
        (CHATS, [f"Hi\n{paragraph}" for paragraph in PARAGRAPHS]),
        (SHARED_CHATS, PARAGRAPHS),
        ({"version": 1, "data": RECORDS}, PARAGRAPHS),
        ({"text": "One word."}, ["One word."]),
    ],
    ids=["strings", "records", "alpaca", "messages", "conversations", "nested", "one"],
)
def test_json_as_a_whole(folder: Path, name: str, indent: int | None, data: object, expected: list[str]) -> None:
    path = folder / name
    path.write_text(json.dumps(data, indent=indent))
    if name == "d.jsonl" and isinstance(data, dict) and "data" in data and indent is None:
        assert "line 1: no field 'text'" in refused(path).what
        return
    text = read_text(path)
    assert text.documents == expected
    assert text.notes[0].startswith(f"{path}: JSON")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps(RECORDS, indent=1)[:-40], None),
        (json.dumps(RECORDS)[:-40], None),
        (json.dumps(RECORDS, indent=1).replace("\n", "\r\n"), PARAGRAPHS),
        ("\n".join(json.dumps(record, indent=1) for record in RECORDS), PARAGRAPHS),
        ("\n".join(json.dumps(list(record.values())) for record in RECORDS), None),
        (json.dumps({"cells": [{"source": ["a\n", "b\n"]}]}, indent=1), None),
        (json.dumps(TEXT), [TEXT]),
        ("\n".join(json.dumps(paragraph) for paragraph in PARAGRAPHS), PARAGRAPHS),
        (json.dumps({"n": "1"}).replace('"1"', "1" * 5000), None),
        ("[" * 100_000, None),
    ],
    ids=[
        "cut", "cut in a line", "crlf", "one after the other", "lists by line", "notebook", "a string", "strings by line",
        "a long number", "deep",
    ],
)  # fmt: skip
def test_json_of_other_forms(tmp_path: Path, content: str, expected: list[str] | None) -> None:
    path = tmp_path / "d.txt"
    path.write_text(content, newline="")
    if expected is None:
        refused(path)
    else:
        assert read_text(path).documents == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ALPACA[0], f"{PARAGRAPHS[0]}\n\nYes."),
        (CHATS[0], f"Hi\n{PARAGRAPHS[0]}"),
        (SHARED_CHATS[0], PARAGRAPHS[0]),
        ({"content": "One word."}, "One word."),
        ({"id": 7, "poem": "One word."}, "One word."),
        ({"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "One"}]}]}, "One"),
    ],
)
@pytest.mark.parametrize("name", ["d.jsonl", "d.txt"])
def test_json_lines_of_other_fields(folder: Path, record: object, expected: str, name: str) -> None:
    path = folder / name
    path.write_text(f"{json.dumps(record)}\n" * 3)
    assert read_text(path).documents == [expected] * 3


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"a": "One.", "b": "Two."}, "no field 'text', and it is not clear"),
        ({"n": 1}, "no field 'text'"),
        ({"messages": []}, "a conversation of no turns"),
        ({"messages": [{"role": "user"}]}, "not a turn of a conversation"),
        ({"text": None}, "no field 'text'"),
    ],
)
def test_records_without_a_text_are_refused_by_line(tmp_path: Path, record: object, says: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f"{json.dumps(record)}\n" * 3)
    assert says in refused(path).what
    assert f"{path}, line 1" in refused(path).what
    path.write_text(json.dumps({"text": "fine"}) + f"\n{json.dumps(record)}\n")
    assert f"{path}, line 2: no string under 'text'" in refused(path).what


def test_a_field_that_is_named_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "b": "Two.", "c": [{"from": "human", "value": "Three."}]}\n' * 2)
    assert read_text(path, field="b").documents == ["Two."] * 2
    assert read_text(path, field="c").documents == ["Three."] * 2
    with pytest.raises(InputError, match=r"line 1: no string under 'd'"):
        read_text(path, field="d")
    (tmp_path / "t.txt").write_text(TEXT)
    with pytest.raises(InputError, match="is text without fields"):
        read_text(tmp_path / "t.txt", field="b")


def test_conversations_go_through_the_template(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}]))
    seen: list[list[dict[str, str]]] = []

    def chat(messages: list[dict[str, str]]) -> str:
        seen.append(messages)
        return "<written>"

    assert read_text(path, chat=chat).documents == ["<written>"]
    assert seen == [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]]

    def strict(messages: list[dict[str, str]]) -> str:
        raise ValueError("roles must alternate")

    with pytest.raises(InputError, match="record 1: conversations: the model's chat template refuses it: roles must"):
        read_text(path, chat=strict)


def table(rows: list[list[str]], **options: object) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows(rows)
    return file.getvalue()


TABLES = {
    "one column": table([["text"], *([paragraph] for paragraph in PARAGRAPHS)]),
    "one column in quotes": table([["text"], *([p] for p in PARAGRAPHS)], quoting=csv.QUOTE_ALL),
    "two columns": table([["id", "text"], *([str(number), p] for number, p in enumerate(PARAGRAPHS))]),
    "index": table([["", "text"], *([str(number), p] for number, p in enumerate(PARAGRAPHS))]),
    "line feeds": table([["id", "text"], *(["1", p] for p in PARAGRAPHS)], lineterminator="\n"),
    "all in quotes": table([["id", "text"], *(["1", p] for p in PARAGRAPHS)], quoting=csv.QUOTE_ALL),
    "semicolons": table([["id", "text"], *(["1", p] for p in PARAGRAPHS)], delimiter=";"),
    "tabs": table([["id", "text"], *(["1", p] for p in PARAGRAPHS)], delimiter="\t"),
    "bars": table([["id", "text"], *(["1", p] for p in PARAGRAPHS)], delimiter="|"),
    "no heading": table([["3", p, "good"] for p in PARAGRAPHS]),
    "written twice": table([["id", "text"], *(["1", p.replace("\n", " ")] for p in PARAGRAPHS)]).replace("\n", "\r\n"),
    "cut": table([["id", "text"], *([str(number), p] for number, p in enumerate(PARAGRAPHS))])[:-20],
    "long cells": table([["id", "text"], *([str(number), TEXT * 200] for number in range(4))]),
    "words": table([["fruit", "colour"], *([f"fruit{n}", f"colour{n}"] for n in range(30))]),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", ["d.csv", "d.txt", "d.tsv"])
def test_tables_of_characters(folder: Path, kind: str, name: str) -> None:
    path = folder / name
    path.write_text(TABLES[kind], newline="", encoding="utf-8")
    if kind == "cut":
        assert "is a table" in refused(path).what
        return
    text = read_text(path)
    assert any(name in text.notes[0] for name in ("CSV", "TSV", "separated by"))
    if kind == "words":  # a heading that is like all other rows is not known to be one
        assert text.documents[-30:] == [f"colour{n}" for n in range(30)]
    elif kind == "long cells":
        assert text.documents == [TEXT * 200] * 4
    elif kind == "written twice":
        assert text.documents == [p.replace("\n", " ") for p in PARAGRAPHS]
    else:
        assert text.documents == PARAGRAPHS


def test_columns_that_are_a_text_together(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(table([["id", "question", "answer"], *([str(n), p, "Yes."] for n, p in enumerate(PARAGRAPHS))]))
    assert read_text(path).documents == [f"{paragraph}\n\nYes." for paragraph in PARAGRAPHS]


@pytest.mark.parametrize(
    "content",
    [
        "id,text\n1,Speak, speak.\n2,One word, good citizens, please.\n3,Yes\n",
        "version,name,eol\n1.1,Buzz\n1.2,Rex,1998\n1.3,Bo,1999\n2.0,Hamm\n",
        "name\tline\nAll\tSpeak\tspeak\nFirst\tOne\n",
    ],
)
def test_uneven_tables(tmp_path: Path, content: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(content)
    assert "is a table" in refused(path).what


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n'))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.md").write_text("three")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("no")
    text = read_text(tmp_path)
    assert text.documents == ["one", "two", "three"]
    assert text.notes[-1] == f"{tmp_path}: 3 files, 1 skipped"


def test_a_saved_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for name, found in (("one", datasets.Dataset.from_list(RECORDS)),):
        found.save_to_disk(str(tmp_path / name))
        assert read_text(tmp_path / name).documents == PARAGRAPHS
    splits = {"train": datasets.Dataset.from_list(RECORDS), "test": datasets.Dataset.from_list(RECORDS[:1])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "both"))
    assert read_text(tmp_path / "both").documents == PARAGRAPHS


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert read_text("-").content == TEXT


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.txt").write_text(TEXT)
    assert read_text("~/t.txt").content == TEXT


HTML = (
    "<!DOCTYPE html>\n<html><head><title>A</title><style>p > a {color: red}</style><script>var a = 1 < 2;</script></head>"
    "<body><p>One word, good &amp; kind citizens.</p></body></html>"
)


@pytest.mark.parametrize(
    "content", [HTML, HTML.lower(), "\n" + HTML.partition("\n")[2], "<?xml version='1.0'?>\n" + HTML]
)
def test_markup(folder: Path, content: str) -> None:
    path = folder / "page.html"
    path.write_text(content)
    assert "is HTML or XML" in refused(path).what
    assert followed(path).split()[-5:] == ["word,", "good", "&", "kind", "citizens."]


PROSE = {
    "brackets": "[Scene: a street. Enter citizens.]\n\nFirst Citizen:\nSpeak, speak.\n",
    "a list of links": "[1]: https://example.org/a\n[2]: https://example.org/b\n\nSee [1] and [2].\n",
    "tasks": "[ ] write the letter\n[x] buy bread, butter and jam\n",
    "braces": "{The stage is dark.} He speaks, slowly.\n{Light.} She answers, at once.\n",
    "template": '{% extends "base.html" %}\n{{ title }}\n',
    "a short list": "[1, 2] is an interval, and so is\n[3, 4].\n",
    "one json line": '{"text": "a"}\nis what a line of JSON looks like.\nMore of it follows, below.\n',
    "quotation": '"Speak," she said.\n"No," he said.\n"Why," she said.\n"Because," he said.\n"Well," she said.\n',
    "quotations": '"To be, or not to be"\n"Brevity is the soul of wit"\n"All the world is a stage"\n',
    "a poem": "Roses are red, violets are blue,\nsugar is sweet, and so are you.\n" * 5,
    "a long poem": "Roses are red, violets are blue\nSugar is sweet, and so are you\n" * 40,
    "chinese": "床前明月光,疑是地上霜\n举头望明月,低头思故乡\n" * 20,
    "indented": "\tTiger, tiger, burning bright\n\tIn the forests of the night\n" * 5,
    "dialogue": "User: I am hungry, find me a place.\nAssistant: Where, please?\n" * 9,
    "title and line": "Ozymandias\nI met a traveller from an antique land\nWho said: two vast and trunkless legs of stone\n",
    "markdown": "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nText, with commas, and so on.\n\n- one, two\n- three, four\n",
    "markup in markdown": '<div align="center">\n\n# Title\n\n</div>\n\nText.\n',
    "javascript": "{\n  const a = [1, 2];\n  call(a, b);\n}\n",
    "python": "import os, sys\n\n\ndef call(a, b):\n    return [a, b]\n\n\nprint(call(1, 2), sep=',')\n",
    "words": "tree\nhouse\nriver\nstone\ngarden\n",
    "numbers": "1,000 men came,\n2,000 men went,\nand nobody knew why.\n",
    "list": "Paris, France\nRome, Italy\nMadrid, Spain\nBerlin, Germany\nVienna, Austria\nOslo, Norway\n",
    "logs": "\x1b[31mred\x1b[0m and \x1b[1mbold\x1b[0m\n" * 9,
    "form feeds": "Page one.\n\x0cPage two.\n\x0cPage three.\n",
    "parquet": "PARE the apples, core them and slice them.\nORC and GGUF are formats; PK\x20is none.\n",
    "a pickle": "(The stage is dark.)\nHe speaks.",
    "right to left": "\u202bשלום, עולם\u202c\nمرحبا، بالعالم\n" * 9,
    "emoji": "fine 👍🏽, and you? 👩‍👩‍👧\n" * 9,
    "next lines": "one\x85two\u2028three\n" * 9,
}  # fmt: skip


@pytest.mark.parametrize("kind", PROSE)
@pytest.mark.parametrize("name", ["d.txt", "d.md", "d"])
def test_prose_is_accepted(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_text(PROSE[kind], encoding="utf-8", newline="")
    assert read_text(path).content == PROSE[kind]


def test_source_code_is_accepted() -> None:
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    assert len(files) > 100
    for path in files:
        if path.stat().st_size:
            assert read_text(path).content == path.read_bytes().decode("utf-8-sig")


def test_the_pages_of_this_project_are_accepted() -> None:
    files = [*Path(__file__).parents[4].glob("core/docs/*.md"), *Path(__file__).parents[4].glob("*.md")]
    assert len(files) > 10
    for path in files:
        assert read_text(path).content == path.read_text(encoding="utf-8")


@pytest.mark.shared
def test_the_reference_texts_are_accepted(shared_dir: Path) -> None:
    files = [*shared_dir.glob("text/*"), *shared_dir.rglob("*.md")]
    assert len(files) > 15
    for path in files:
        assert read_text(path).content == path.read_text(encoding="utf-8")
