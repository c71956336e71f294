"""Reading YAML that may be wrong, or meant to do harm."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from anyblock.config.yaml_source import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml, write_yaml
from anyblock.contract.config_tree import dotted, split_key
from anyblock.errors import ConfigError
from hypothesis import example, given, settings
from hypothesis import strategies as st


def refused(path: Path, message: str) -> None:
    started = time.process_time()
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert str(path) in caught.value.what
    assert time.process_time() - started < 5


def test_every_key_knows_its_line(write) -> None:
    path = write(
        """
        # a comment
        model: a
        data:
          path: b

          block_size: 3
        pruning: {ffn: {sizes: [1,
          2]}}
        """
    )
    tree = read_yaml(path)
    assert tree.origin(("model",)) == f"{path}:2"
    assert tree.origin(("data", "block_size")) == f"{path}:6"
    assert tree.origin(("pruning", "ffn", "sizes")) == f"{path}:7"
    assert tree.origin(("pruning", "ffn", "sizes", 1)) == f"{path}:8"
    assert tree.origin(("data", "unheard")) == f"{path}:3"
    assert tree.origin(("unheard",)) == ""
    assert tree.place(("data", "path")) == f"{path}:4: data.path"


def test_numbers_are_read_as_people_mean_them(write) -> None:
    tree = read_yaml(write("a: 1e-6\nb: 78_000\nc: 2024-01-01\nd: 0.8x\ne: ''\nf: null\n"))
    assert tree.data == {"a": 1e-6, "b": 78000, "c": "2024-01-01", "d": "0.8x", "e": "", "f": None}


_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(
    value=st.recursive(
        _VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
    )
)
@example(
    value=["1e-6", "1e6", "12", "0.8x", "yes", "null", "~", "2024-01-01", "<<", "=", "1:30", "${a}", "a: b", "\x85"]
)
def test_what_is_written_is_read_back(value: object) -> None:
    assert parse_yaml(write_yaml({"key": value}).decode(), "run.yaml")[0] == {"key": value}


def test_anchors_and_merge_keys_are_fine(write) -> None:
    path = write(
        """
        base: &base
          x: 1
          y: 2
        own:
          <<: *base
          y: 3
        again: *base
        """
    )
    tree = read_yaml(path)
    assert tree.data["own"] == {"x": 1, "y": 3}
    assert tree.data["again"] == {"x": 1, "y": 2}
    assert tree.origin(("own", "x")) == f"{path}:2"
    assert tree.origin(("own", "y")) == f"{path}:6"


def test_an_empty_file_says_nothing(write) -> None:
    assert read_yaml(write("# nothing\n")).data == {}


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.yaml", "no such file")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "no such file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "top level is a list"),
        ("just text\n", "top level is a single value"),
        ("42\n", "top level is a single value"),
        ("a: [1, 2\n", ":2:1: not YAML"),
        ("a: b: c\n", ":1:5: not YAML"),
        ("a: 'open\n", "not YAML"),
        ("a: 1\n\tb: 2\n", ":2:1: not YAML"),
        ("a: *nobody\n", ":1:4: not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "not YAML: but found another document"),
        ("a: 1\nb: 2\na: 3\n", r":3: duplicate key 'a', first on line 1"),
        ("data:\n  x: 1\n  x: 2\n", r":3: duplicate key 'data.x', first on line 2"),
        ("data: [{x: 1, x: 2}]\n", r"duplicate key 'data\[0\].x'"),
        ("a: 1\n'a': 3\n", "duplicate key 'a'"),
        ("? [a, b]\n: 1\n", ":1: the key is a sequence, which is not a name"),
        ("1: x\n", ":1: the key is '1', which is not a name"),
        ("on: x\n", ":1: the key is 'on', which is not a name"),
        ("~: x\n", "which is not a name"),
        ("a: !!python/object/apply:os.system [echo]\n", ":1: the tag '.*os.system'"),
        ("a: !!python/object/apply:pathlib.PosixPath [a]\n", "the tag"),
        ("a: !!python/name:os.system\n", "the tag"),
        ("a: !custom 3\n", "the tag '!custom'"),
        ("a: !!timestamp 2024-01-01\n", "the tag"),
        ("a: !!binary aGk=\n", "the tag"),
        ("a: &a [*a]\n", "alias that contains itself"),
        ("a: &a {b: *a}\n", "alias that contains itself"),
        ("a: \x00\n", "not YAML"),
        ("a: {<<: 3}\n", ":1: << merges a scalar"),
    ],
)
def test_faulty_text_is_refused(write, text: str, message: str) -> None:
    path = write("")
    path.write_text(text, encoding="utf-8")
    refused(path, message)


def test_an_explicit_plain_tag_is_fine(write) -> None:
    assert read_yaml(write("a: !!str 12\nb: !!int '3'\n")).data == {"a": "12", "b": 3}


def test_a_pickle_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtin\x94.")
    refused(path, "byte 0 is not UTF-8")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: a\n")
    assert read_yaml(path).data == {"model": "a"}


def test_a_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: " + "x" * MAX_BYTES)
    refused(path, "larger than 256 KiB")


def test_very_many_values(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: [" + "1," * 20_000 + "]\n")
    refused(path, "more than 10000 values")


@pytest.mark.parametrize("pair", [("[", "]"), ("{a: ", "}")])
def test_deep_nesting(tmp_path: Path, pair: tuple[str, str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: " + pair[0] * 20_000 + pair[1] * 20_000)
    refused(path, f":1: nested more than {MAX_DEPTH} deep")


def test_a_billion_laughs(tmp_path: Path) -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join(lines))
    refused(path, "aliases expand to more than 10000 values")


def test_a_billion_laughs_of_mappings(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: ha, y: ha, z: ha}"]
    lines += [f"a{level}: &a{level} {{x: *a{level - 1}, y: *a{level - 1}, z: *a{level - 1}}}" for level in range(1, 25)]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join(lines))
    refused(path, "aliases expand|itself")


def test_a_billion_laughs_of_merges(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: ha}"]
    lines += [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}" for level in range(1, 25)]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join(lines))
    refused(path, "aliases expand")


def test_of_several_merged_mappings_the_first_counts_most(write) -> None:
    tree = read_yaml(write("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc:\n  <<: [*a, *b]\n"))
    assert tree.data["c"] == {"x": 1, "y": 3}


PARTS = st.from_regex(r"[a-z_][a-z0-9_-]*", fullmatch=True)


@settings(deadline=None, derandomize=True)
@given(PARTS, st.lists(PARTS | st.integers(0, 99), max_size=5))
def test_a_key_path_is_read_as_it_is_written(first: str, rest: list[str | int]) -> None:
    path = (first, *rest)
    assert split_key(dotted(path)) == path


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(alphabet="ab:-[]{}&*!#'\"|>?%@`, \n\t0.", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_yaml(text, "text")
