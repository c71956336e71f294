"""Smallest and largest values, and what is said of budgets that cannot be kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from anyblock.errors import BudgetError, UsageError
from anyblock.search import Budget, Group, Option, Problem, largest, smallest, solve
from hypothesis import given, settings
from hypothesis import strategies as st

Draw = Callable[..., st.SearchStrategy[Problem]]
some = settings(deadline=None, derandomize=True, max_examples=60)
COSTS = ("latency", "memory", "params")


def bounds(budgets: tuple[Budget, ...]) -> Iterator[tuple[Budget, tuple[Budget, ...], tuple[Budget, ...]]]:
    """Return every bound as a budget, with the other bound on its cost and the budgets on other costs."""
    for budget in budgets:
        rest = tuple(other for other in budgets if other is not budget)
        low = () if budget.lower is None else (Budget(budget.cost, lower=budget.lower),)
        high = () if budget.upper is None else (Budget(budget.cost, upper=budget.upper),)
        yield from ((bound, high, rest) for bound in low)
        yield from ((bound, low, rest) for bound in high)


@some
@given(data=st.data(), cost=st.sampled_from(COSTS))
def test_extremes_are_reachable_and_extreme(
    data: st.DataObject, cost: str, draw_problems: Draw, try_everything: type
) -> None:
    problem = data.draw(draw_problems(budgets=(0, 3)))
    others = replace(problem, budgets=tuple(budget for budget in problem.budgets if budget.cost != cost))
    values = try_everything(others).values(cost)
    for function, pick in ((smallest, min), (largest, max)):
        if not values:
            with pytest.raises(BudgetError):
                function(problem, cost)
            continue
        found = function(problem, cost)
        assert found.proven
        assert found.value == found.bound == pytest.approx(pick(values), rel=1e-12, abs=1e-12)
        assert others.keeps(found.choices)
        assert others.costs(found.choices)[cost] == found.value


@settings(deadline=None, derandomize=True, max_examples=100)
@given(data=st.data())
def test_the_message_is_true(data: st.DataObject, draw_problems: Draw, try_everything: type) -> None:
    problem = data.draw(draw_problems(budgets=(1, 3)))
    if try_everything(problem).choices:
        return
    with pytest.raises(BudgetError) as caught:
        solve(problem)
    head, *lines = caught.value.what.splitlines()
    sides = list(bounds(problem.budgets))
    assert len(lines) == len(sides)
    impossible = []
    for line, (side, own, rest) in zip(lines, sides, strict=True):
        pick = max if side.upper is None else min
        alone = try_everything(replace(problem, budgets=own)).values(side.cost)
        together = try_everything(replace(problem, budgets=(*own, *rest))).values(side.cost)
        numbers = re.findall(r"(?:value is|reachable is|, and) ([^\s;,]+)", line)
        assert line.startswith(f"  {side}: ")
        if not alone:
            assert line.endswith("is reachable")
        else:
            assert float(numbers[0]) == pytest.approx(pick(alone), rel=1e-12, abs=1e-12)
        if alone and rest and together:
            assert float(numbers[1]) == pytest.approx(pick(together), rel=1e-12, abs=1e-12)
        elif alone and rest:
            assert line.endswith("the other budgets exclude each other")
        if not alone or not side.keeps(pick(alone)):
            impossible.append(side)
            assert str(side) in head
    if not impossible:
        assert head == "each budget can be kept alone, but not all of them together"


def model(budgets: tuple[Budget, ...]) -> Problem:
    small = Option("small", 1.0, {"params": 10.0, "latency": 8.0})
    fast = Option("fast", 1.0, {"params": 30.0, "latency": 2.0})
    whole = Option("whole", 0.0, {"params": 40.0, "latency": 9.0})
    groups = tuple(Group(f"g{index}", (small, fast, whole)) for index in range(2))
    return Problem(groups, budgets, {"params": 100.0})


def test_one_budget_gets_its_smallest_value() -> None:
    with pytest.raises(BudgetError) as caught:
        solve(model((Budget("params", upper=110),)))
    assert str(caught.value) == (
        "no choice of options keeps params <= 110\n"
        "  params <= 110: the smallest reachable value is 120\n"
        "to do: allow params <= 120, or offer more options"
    )


def test_budgets_that_only_fail_together_say_so() -> None:
    with pytest.raises(BudgetError) as caught:
        solve(model((Budget("params", upper=125), Budget("latency", upper=6))))
    assert str(caught.value) == (
        "each budget can be kept alone, but not all of them together\n"
        "  latency <= 6: the smallest reachable value is 4, and 16 while the other budgets are kept\n"
        "  params <= 125: the smallest reachable value is 120, and 160 while the other budgets are kept\n"
        "to do: allow latency <= 16 or params <= 160, or offer more options"
    )


def test_a_range_between_two_reachable_values() -> None:
    with pytest.raises(BudgetError) as caught:
        solve(model((Budget("params", upper=135, lower=125),)))
    assert "params >= 125: the largest value with params <= 135 that is reachable is 120" in str(caught.value)
    assert "params <= 135: the smallest value with params >= 125 that is reachable is 140" in str(caught.value)


def test_fixed_options_count_in_what_is_reachable() -> None:
    with pytest.raises(BudgetError, match="smallest reachable value is 150"):
        solve(model((Budget("params", upper=130),)), fixed={"g1": "whole"})


def test_an_unknown_cost_is_refused() -> None:
    with pytest.raises(UsageError, match=r"does not state the cost 'parms'(.|\n)*'params'"):
        smallest(model(()), "parms")
