"""The page on extending names every kind, its hook, its base and an example that is there."""

from __future__ import annotations

import re

import pytest
from anyblock.contract.kinds import KINDS
from anyblock_tests.pages import DOCS

PAGE = DOCS / "extending.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the workspace is not here")
def test_the_page_has_a_row_for_every_kind() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(KINDS)
    for kind in KINDS.values():
        (row,) = re.findall(rf"^\| `{kind.name}` \| .*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        assert f"`{kind.hook}`" in row
        assert kind.base in row or kind.name == "costs"
        assert f"contract.{kind.module}" in row
        (example,) = re.findall(r"\]\((\S+\.py)\)", row)
        assert (DOCS / example).is_file(), example


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_base_of_every_kind_can_be_imported_and_accepts_its_subclasses(kind: str) -> None:
    base = KINDS[kind].base_class()
    assert KINDS[kind].classes == KINDS[kind].accepts(type("Own", (base,), {}))
    assert not KINDS[kind].accepts(object())
    assert not KINDS[kind].accepts(int)
