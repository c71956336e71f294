"""Text from data sets on the hub."""

from __future__ import annotations

import json
from typing import Any

import pytest

READ = """
import sys
from anyblock.calibration.text import read_text
from anyblock.errors import InputError
try:
    text = read_text(sys.argv[1])
    print(text.documents, *text.notes[-1:], sep="|")
except InputError as error:
    print(error)
"""


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture
def filled(hub: Any) -> Any:
    files = {"README.md": b"# About", "data/a.jsonl": lines("one", "two"), "data/b.jsonl": lines("three")}
    hub.add("datasets/owner/texts", files)
    return hub


def test_a_file_of_a_data_set(filled: Any, python: Any) -> None:
    assert "['three']" in python("-c", READ, "hf://datasets/owner/texts/data/b.jsonl").stdout
    assert filled.downloads == ["data/b.jsonl"]


def test_a_folder_of_a_data_set(filled: Any, python: Any) -> None:
    found = python("-c", READ, "hf://datasets/owner/texts/data").stdout
    assert "['one', 'two', 'three']" in found
    assert "2 files" in found
    assert sorted(filled.downloads) == ["data/a.jsonl", "data/b.jsonl"]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("hf://datasets/owner/nothing", "the hub has no data set owner/nothing"),
        ("hf://datasets/owner/texts/c.txt", "has no file c.txt"),
        ("hf://datasets/owner", "names no data set"),
    ],
)
def test_what_is_not_there(filled: Any, python: Any, address: str, says: str) -> None:
    assert says in python("-c", READ, address).stdout
