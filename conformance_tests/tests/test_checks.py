"""What every check has to have."""

from __future__ import annotations

import ast
from pathlib import Path

import anyblock_conformance.checks
import pytest
from anyblock_conformance.check import check
from anyblock_conformance.levels import FLOORS, Level
from anyblock_conformance.registry import all_checks, require_order
from matrix import PAGE

CHECKS = all_checks()
IDS = [found.id for found in CHECKS]


@pytest.mark.parametrize("found", CHECKS, ids=IDS)
def test_a_check_says_what_why_and_how_to_fix(found):
    assert found.summary.endswith(".")
    assert len(found.summary) < 160
    assert len(found.why.split()) >= 8
    assert len(found.fix.split()) >= 8
    assert found.function.__name__ == "check_" + found.id.partition(".")[2].replace("-", "_")


@pytest.mark.parametrize(
    "docstring",
    ["", "One line.", "One.\n\nWhy: because.", "One.\n\nHow to fix: somehow.", "\n\nWhy: a.\n\nHow to fix: b."],
)
def test_a_check_without_its_documentation_is_refused(docstring):
    def check_x(subject):
        raise AssertionError

    check_x.__doc__ = docstring
    with pytest.raises(ValueError, match=r"structure\.x"):
        check("structure.x")(check_x)


@pytest.mark.parametrize("identifier", ["x", "other.x", "structure.X", "structure.", "structure.x_y", "structure.x."])
def test_an_id_of_another_form_is_refused(identifier):
    with pytest.raises(ValueError, match="id"):
        check(identifier)


def test_checks_have_one_id_each_and_come_behind_what_they_depend_on():
    assert len(set(IDS)) == len(IDS)
    with pytest.raises(ValueError, match="two checks"):
        require_order([*CHECKS, CHECKS[0]])
    with pytest.raises(ValueError, match="depends on"):
        require_order(reversed(CHECKS))


def test_every_level_has_more_checks_than_its_floor_asks_for():
    for level in Level:
        assert sum(found.level == level for found in CHECKS) >= FLOORS[level] >= 1


def test_no_check_relies_on_rewritten_assert_statements():
    """pytest rewrites asserts in test files only; installed checks have to carry values in their own messages."""
    (folder,) = anyblock_conformance.checks.__path__
    for path in Path(folder).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], path.name


def test_every_check_is_in_the_documentation():
    text = PAGE.read_text(encoding="utf-8")
    assert [identifier for identifier in IDS if f"`{identifier}`" not in text] == []
