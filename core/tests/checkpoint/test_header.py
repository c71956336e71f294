"""The header reader: valid files agree with the safetensors library, hostile ones are refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from anyblock.checkpoint import read_header
from anyblock.errors import AnyBlockError, CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda n: n != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
specs = st.dictionaries(names, st.tuples(st.sampled_from(["F32", "BF16", "U8", "I64", "F64"]), shapes), max_size=6)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@settings(deadline=None, derandomize=True)
@given(spec=specs)
def test_agrees_with_the_library(tools: Any, spec: Any) -> None:
    content = tools.tensor_file(spec)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x.safetensors")
        file.write_bytes(content)
        header = read_header(file)
    expected = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(content)}
    found = {name: (e.dtype, e.shape, content[e.start : e.end]) for name, e in header.tensors.items()}
    assert found == expected
    assert header.metadata == {"format": "pt"}
    starts = [e.start for e in header.tensors.values()]
    assert starts == sorted(starts)


HOSTILE = {
    "empty": (b"", "has 0 bytes"),
    "length beyond the bound": ((100_000_001).to_bytes(8, "little") + b"{}", "claims a header of 100,000,001 bytes"),
    "length of 2^63": ((1 << 63).to_bytes(8, "little") + b"{}", "claims a header of"),
    "length beyond the file": (
        (1000).to_bytes(8, "little") + b"{}",
        "claims a header of 1,000 bytes and has 10 in all",
    ),
    "no brace": ((2).to_bytes(8, "little") + b" {", "starts with b' '"),
    "not UTF-8": ((4).to_bytes(8, "little") + b'{"\xff"', "not UTF-8"),
    "not JSON": ((4).to_bytes(8, "little") + b'{"a"', "not JSON"),
    "a list after the brace rule": ((2).to_bytes(8, "little") + b"{]", "not JSON"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_refuses_bytes(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        read_header(file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


HEADERS = {
    "unknown dtype": ({"a": entry("F31")}, b"\0" * 8, "'a' has the dtype 'F31'"),
    "dtype that is not text": ({"a": entry(["F32"])}, b"\0" * 8, "has the dtype ['F32']"),
    "wrong size": ({"a": entry(shape=(3,))}, b"\0" * 8, "'a' has 8 bytes"),
    "negative size": ({"a": entry(shape=(-2,))}, b"\0" * 8, "has the shape [-2]"),
    "boolean size": ({"a": entry(shape=(True, 2))}, b"\0" * 8, "has the shape [True, 2]"),
    "fractional size": ({"a": entry(shape=(2.0,))}, b"\0" * 8, "has the shape [2.0]"),
    "shape that is a number": ({"a": entry(shape=2)}, b"\0" * 8, "has the shape 2"),
    "huge sizes": ({"a": entry(shape=[2**62] * 64)}, b"\0" * 8, "'a' has 8 bytes"),
    "too many sizes": ({"a": entry(shape=[1] * 65)}, b"\0" * 8, "has the shape"),
    "size of a thousand digits": ({"a": entry(shape=[0, 10**1000])}, b"", "has the shape"),
    "offsets that are text": ({"a": entry(offsets="08")}, b"\0" * 8, "has the data_offsets '08'"),
    "three offsets": ({"a": entry(offsets=(0, 4, 8))}, b"\0" * 8, "has the data_offsets"),
    "offsets the wrong way": ({"a": entry(offsets=(8, 0))}, b"\0" * 8, "'a' has -8 bytes"),
    "negative offset": ({"a": entry(offsets=(-8, 0))}, b"\0" * 8, "has the data_offsets [-8, 0]"),
    "missing field": ({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8, "'a' is described by 'dtype', 'shape'"),
    "further field": ({"a": entry(pickle="x")}, b"\0" * 8, "'a' is described by"),
    "description that is a list": ({"a": [1]}, b"", "'a' is described by [1]"),
    "outside of the file": ({"a": entry()}, b"\0" * 7, "'a' ends at byte"),
    "bytes after": ({"a": entry()}, b"\0" * 9, "1 bytes after tensor 'a' belong to no tensor"),
    "gap in front": ({"a": entry(offsets=(8, 16))}, b"\0" * 16, "'a' leaves a gap of 8 bytes after the header"),
    "gap between": (
        {"a": entry(), "b": entry(offsets=(12, 20))},
        b"\0" * 20,
        "'b' leaves a gap of 4 bytes after tensor 'a'",
    ),
    "overlap": ({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 12, "'b' overlaps tensor 'a'"),
    "the same bytes twice": ({"a": entry(), "b": entry()}, b"\0" * 8, "'b' overlaps tensor 'a'"),
    "half a byte": ({"a": entry("F4", (3,), (0, 1))}, b"\0", "'a' has 1 bytes"),
    "metadata with numbers": ({"__metadata__": {"a": 1}}, b"", "__metadata__ is not a map from text to text"),
    "metadata with half a surrogate pair": ({"__metadata__": {"a": "\ud800"}}, b"", "not valid Unicode"),
    "metadata that is a list": ({"__metadata__": []}, b"", "__metadata__ is not a map from text to text"),
    "a name that is not Unicode": (
        b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        b"",
        "not valid Unicode",
    ),
    "the same name twice": (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"\0\0",
        "the key 'a' stands there twice",
    ),
    "the same field twice": (
        b'{"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}}',
        b"\0",
        "the key 'dtype' stands there twice",
    ),
    "not a number": (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"\0", "has the shape [nan]"),
    "an integer of 5000 digits": (b'{"a":' + b"9" * 5000 + b"}", b"", "is not JSON"),
    "deep nesting": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "nested too deeply"),
}


@pytest.mark.parametrize(("header", "data", "message"), HEADERS.values(), ids=HEADERS)
def test_refuses_header(tools: Any, tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(tools.raw_file(header, data))
    with pytest.raises(CheckpointError) as raised:
        read_header(file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)
    assert len(str(raised.value)) < 2000


def test_several_kinds_of_files_are_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "absent", "does not exist"), (tmp_path, "not a regular file")):
        with pytest.raises(CheckpointError, match=message):
            read_header(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header("/dev/zero")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(pipe)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"[[]],", b'{"":{}},', b'"":0,', b"0,"], ids=repr)
def test_memory_stays_a_small_multiple_of_the_file(tools: Any, tmp_path: Path, unit: bytes) -> None:
    size = 6_000_000 if b"[" in unit or b"{" in unit else 500_000
    body = unit * (size // len(unit))
    text = b'{"a":[' + body[:-1] + b"]}" if b":0" not in unit else b"{" + body[:-1] + b"}"
    file = tmp_path / "bomb.safetensors"
    file.write_bytes(tools.raw_file(text))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            read_header(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * file.stat().st_size


@settings(deadline=None, derandomize=True, max_examples=300)
@given(data=st.data())
def test_accepts_nothing_that_the_library_refuses(tools: Any, data: st.DataObject) -> None:
    content = bytearray(tools.tensor_file({"a": ("F32", (2, 3)), "b": ("BF16", (4,)), "c": ("U8", ())}))
    end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x.safetensors")
        file.write_bytes(content)
        try:
            header = read_header(file)
        except AnyBlockError:
            return
    try:
        expected = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(bytes(content))}
    except SafetensorError as error:
        pytest.fail(f"accepted what the library refuses ({error}): {bytes(content[8:end])!r}")
    assert {n: (e.dtype, e.shape, bytes(content[e.start : e.end])) for n, e in header.tensors.items()} == expected


def test_a_hostile_length_needs_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "sparse.safetensors"
    file.write_bytes((99_999_999).to_bytes(8, "little") + b"{")
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (120 << 20, 120 << 20))
from anyblock.checkpoint.header import read_header
from anyblock.errors import CheckpointError
try:
    read_header({str(file)!r})
except CheckpointError as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "claims a header of 99,999,999 bytes and has 9 in all" in done.stdout, done.stderr


def test_the_header_is_parsed_without_torch() -> None:
    code = "import sys, anyblock.checkpoint; print(json.dumps([m in sys.modules for m in ('torch', 'transformers')]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False]
