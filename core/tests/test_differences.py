"""The page on differences from the reference names tests that exist, and leaves no defect out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "core" / "docs" / "differences.md"
TEST = re.compile(r"`([\w/.-]+\.py)::(\w+)`")
DEFECTS = 33

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the workspace is not here")


def rows() -> list[list[str]]:
    """The cells of every row below a table's head."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [cells for cells in found if cells[-1].strip() != "test"]


def test_every_row_names_a_test_that_exists() -> None:
    assert len(rows()) > DEFECTS
    for cells in rows():
        assert len(cells) == 4, cells
        named = TEST.findall(cells[-1])
        assert named, cells
        assert TEST.sub("", cells[-1]).strip(", ") == "", cells[-1]
        for path, name in named:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{path} has no {name}"


def test_every_defect_has_a_row() -> None:
    numbers = [int(cells[0]) for cells in rows() if cells[0].isdigit()]
    assert numbers == list(range(1, DEFECTS + 1))


def test_every_file_that_the_page_names_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:core|plugins)/[\w/.-]+\.py)`", text):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"\]\(([\w.-]+\.md)", text):
        assert (PAGE.parent / path).is_file(), path
    for name in re.findall(r"`anyblock-([\w-]+)`", text):
        assert (ROOT / "plugins" / "families" / name / "tests" / "test_golden.py").is_file(), name


def test_tests_of_defects_are_on_the_page() -> None:
    """A test whose name begins with a defect's number stands in that defect's row."""
    shown = {cells[0]: cells[-1] for cells in rows() if cells[0].isdigit()}
    for path in ROOT.glob("core/tests/*/test_reference_defects.py"):
        for number, name in re.findall(r"^def test_(\d\d)_(\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert f"test_{number}_{name}`" in shown[str(int(number))], name
