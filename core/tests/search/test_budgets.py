"""Budgets."""

from __future__ import annotations

import pytest
from anyblock.errors import UsageError
from anyblock.search import Budget


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no bound"),
        ({"upper": float("nan")}, "is nan"),
        ({"lower": float("inf")}, "is inf"),
        ({"upper": 1.0, "lower": 2.0}, "'params >= 2' and 'params <= 1' contradict"),
    ],
)
def test_unusable_bounds(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget("params", **arguments)


def test_bounds_as_text_lose_no_digit() -> None:
    assert str(Budget("params", upper=92_345_344.0)) == "params <= 92345344"
    assert str(Budget("params", lower=0.125)) == "params >= 0.125"
    assert str(Budget("params", upper=2.0, lower=1.0)) == "1 <= params <= 2"


def test_keeping_a_budget_allows_for_rounding_only() -> None:
    budget = Budget("params", upper=1e11, lower=1e10)
    assert budget.keeps(1e11)
    assert budget.keeps(1e11 * (1 + 5e-14))
    assert not budget.keeps(1e11 + 1)
    assert not budget.keeps(1e10 - 1)
