"""The kill matrix: every mutant is noticed by the check that it is for, and by no check that does not depend on that one."""

from __future__ import annotations

import re

import pytest
from anyblock.family import ModelFamily
from anyblock_conformance.registry import all_checks, dependents
from matrix import documented_rows, killers, results, row
from mutants import MUTANTS
from mutants.good import Dense, Sparse

NAMES = [mutant.name for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_mutant_is_noticed_by_its_check_and_only_by_those_that_depend_on_it(mutant):
    found = killers(results(mutant.family()))
    assert mutant.check in found, f"{mutant.name} survives: {found}"
    allowed = {mutant.check, *dependents(mutant.check)}
    assert found.keys() <= allowed, {name: message for name, message in found.items() if name not in allowed}
    assert re.search(r"\d|'|\w\.\w|[a-z][A-Z]", found[mutant.check]), "the message names no value, tensor or class"
    assert documented_rows()[mutant.name] == row(mutant, found), "run conformance_tests/scripts/write_matrix.py"


@pytest.mark.parametrize("good", [Dense, Sparse])
def test_the_adapters_that_mutants_are_made_of_pass(good):
    found = results(ModelFamily.from_descriptor(good, model_type=good._model_type))
    assert not killers(found)


def test_every_check_has_a_mutant():
    assert {mutant.check for mutant in MUTANTS} == {check.id for check in all_checks()}


def test_every_mutant_is_documented_once():
    assert sorted(documented_rows()) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_mutant_is_small(mutant):
    """A few lines over a good adapter, so that its fault can be seen at a glance."""
    import inspect

    lines = [line for line in inspect.getsource(mutant.descriptor).splitlines() if line.strip()]
    assert 2 <= len(lines) <= 15, len(lines)
