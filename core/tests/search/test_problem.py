"""What a problem refuses, and what it computes."""

from __future__ import annotations

import json
import math

import pytest
from anyblock.errors import BudgetError, UsageError
from anyblock.search import Budget, Group, Option, Problem, Solution, solve

A = Option("a", 1.0, {"params": 10.0, "memory": 3.0})
B = Option("b", 0.5, {"params": 20.0, "memory": 5.0})


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_named(score: float) -> None:
    with pytest.raises(UsageError, match=f"score of option 'a' of group 'block_0_ffn' is {score}"):
        Group("block_0_ffn", (Option("a", score),))


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0])
def test_a_cost_that_is_no_amount_is_named(cost: float) -> None:
    with pytest.raises(UsageError, match=f"the cost 'params' of option 'a' of group 'g' is {cost}"):
        Group("g", (Option("a", 0.0, {"params": cost}),))
    with pytest.raises(UsageError, match=f"the fixed cost 'params' is {cost}"):
        Problem((Group("g", (A,)),), fixed_costs={"params": cost})


def test_keys_are_unique_and_nothing_is_empty() -> None:
    with pytest.raises(UsageError, match="group 'g' has no options"):
        Group("g", ())
    with pytest.raises(UsageError, match="group 'g' has two options with the key 'a'"):
        Group("g", (A, A))
    with pytest.raises(UsageError, match="two groups have the key 'g'"):
        Problem((Group("g", (A,)), Group("g", (B,))))
    with pytest.raises(UsageError, match="no groups"):
        Problem(())


def test_a_budgeted_cost_is_stated_by_every_option() -> None:
    groups = (Group("g", (A, B)), Group("h", (Option("c", 0.0, {"param": 1.0}),)))
    with pytest.raises(UsageError, match=r"'c' of group 'h' does not state the cost 'params'(.|\n)*'param'"):
        Problem(groups, (Budget("params", upper=1.0),))


def test_every_budget_on_one_cost_is_kept() -> None:
    budgets = (Budget("params", upper=30), Budget("params", lower=5), Budget("params", upper=20))
    problem = Problem((Group("g", (A, B)),), budgets)
    assert solve(problem).costs["params"] == 20
    with pytest.raises(BudgetError, match=r"params <= 15(.|\n)*params >= 20"):
        solve(Problem((Group("g", (A, B)),), (Budget("params", lower=20), Budget("params", upper=15))))


def test_sums_include_fixed_costs_and_only_what_all_state() -> None:
    problem = Problem((Group("g", (A, B)), Group("h", (Option("c", 0.25, {"params": 1.0}),))), (), {"params": 100.0})
    choices = {"g": "b", "h": "c"}
    assert problem.costs(choices) == {"params": 121.0}
    assert problem.score(choices) == 0.75
    assert problem.keeps(choices)


def test_lists_are_taken_for_tuples() -> None:
    problem = Problem([Group("g", [A, B])], [Budget("params", upper=10)])  # type: ignore[arg-type]
    assert problem == Problem((Group("g", (A, B)),), (Budget("params", upper=10),))


def test_a_solution_survives_json() -> None:
    solution = Solution({"g": "a"}, 1.0, 0.5, 0.5, "limit", {"params": 10.0}, 0.1, 3, {"params": 0.2})
    assert Solution(**json.loads(json.dumps(solution.to_dict()))) == solution
