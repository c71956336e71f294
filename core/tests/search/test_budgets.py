"""Budgets from numbers and from text."""

from __future__ import annotations

import pytest
from anyblock.errors import UsageError
from anyblock.search import Budget, parse_budget, parse_budgets

TEACHER = {"params": 200e6, "memory": 4 * 2.0**30, "kv_heads": 96.0, "latency": 20.0, "throughput": 100.0}


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("params=0.8x", Budget("params", upper=160e6)),
        ("params=80%", Budget("params", upper=160e6)),
        ("params=100M", Budget("params", upper=100e6)),
        ("params<=1e8", Budget("params", upper=1e8)),
        ("params=90M..100M", Budget("params", upper=100e6, lower=90e6)),
        ("params=0.4x..100M", Budget("params", upper=100e6, lower=80e6)),
        ("memory=2.5GiB", Budget("memory", upper=2.5 * 2**30)),
        ("memory = 2 GB", Budget("memory", upper=2e9)),
        ("kv_heads<=40", Budget("kv_heads", upper=40)),
        ("kv_heads>=40", Budget("kv_heads", lower=40)),
        ("latency=0.01s", Budget("latency", upper=10.0)),
        ("latency=12ms", Budget("latency", upper=12.0)),
        ("throughput=1.5x", Budget("throughput", lower=150.0)),
    ],
)
def test_text(text: str, budget: Budget) -> None:
    assert parse_budget(text, TEACHER) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parms=0.8x", "no cost 'parms'(.|\n)*'params'"),
        ("params", "budget 'params'(.|\n)*params=0.8x"),
        ("params=", "budget 'params='"),
        ("params=2GiB", "'2GiB' is no quantity"),
        ("params=-5", "no quantity"),
        ("params=100M..90M", "lower bound is above the upper"),
        ("params=0.8x..100M", "'params >= 160000000' and 'params <= 100000000' contradict"),
        ("experts=8", "the teacher's 'experts' is not known(.|\n)*kv_heads"),
    ],
)
def test_unusable_text(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_budget(text, TEACHER)


def test_several() -> None:
    assert parse_budgets(["params>=50M", "memory=0.5x", "params<=0.8x", "params=150M"], TEACHER) == (
        Budget("memory", upper=2 * 2.0**30),
        Budget("params", upper=150e6, lower=50e6),
    )
    with pytest.raises(UsageError, match="'params >= 150000000' and 'params <= 100000000' contradict"):
        parse_budgets(["params>=150M", "params<=50%"], TEACHER)


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
