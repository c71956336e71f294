"""Budgets as people write them, in absolute numbers."""

from __future__ import annotations

import pytest
from anyblock.config.schema import SearchConfig
from anyblock.errors import UsageError
from anyblock.search import Budget
from anyblock.stages.search import resolve_budgets

TEACHER = {"params": 200e6, "memory": 4 * 2.0**30, "kv_heads": 96.0, "latency": 20.0}


def resolved(*texts: str) -> tuple[Budget, ...]:
    settings = SearchConfig.model_validate({"budget": list(texts), "batch": 2, "length": 100, "generated": 50})
    return resolve_budgets(settings.bounds(), TEACHER)


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
        ("throughput=2x", Budget("latency", upper=10.0)),
        ("throughput=10000tok/s", Budget("latency", upper=10.0)),
    ],
)
def test_text(text: str, budget: Budget) -> None:
    assert resolved(text) == (budget,)


def test_several() -> None:
    assert resolved("params>=50M", "memory=0.5x", "params<=0.8x") == (
        Budget("params", upper=160e6, lower=50e6),
        Budget("memory", upper=2 * 2.0**30),
    )


def test_latency_and_throughput_are_two_budgets_on_one_cost() -> None:
    assert resolved("latency=12ms", "throughput=2x") == (Budget("latency", upper=12.0), Budget("latency", upper=10.0))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no budget"),
        (["experts=8"], "the teacher's 'experts' is not known(.|\n)*kv_heads"),
        (["params=0.8x..100M"], "'params >= 160000000' and 'params <= 100000000' contradict"),
    ],
)
def test_unusable_budgets(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolved(*texts)
