"""Solutions against trying everything, their bounds, and their independence of order, seeds and time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from anyblock.errors import BudgetError, ExecutionError, UsageError
from anyblock.search import Budget, Group, Option, Problem, Solution, solve, solve_diverse
from hypothesis import given, settings
from hypothesis import strategies as st

Draw = Callable[..., st.SearchStrategy[Problem]]
many = settings(deadline=None, derandomize=True, max_examples=150)
some = settings(deadline=None, derandomize=True, max_examples=40)


def check_claims(problem: Problem, solution: Solution) -> None:
    assert problem.keeps(solution.choices)
    assert solution.score == problem.score(solution.choices)
    assert solution.costs == problem.costs(solution.choices)
    assert solution.bound <= solution.score
    assert solution.gap == pytest.approx((solution.score - solution.bound) / (abs(solution.score) or 1.0), rel=1e-9)


@many
@given(data=st.data())
def test_the_optimum_is_found_and_proven(data: st.DataObject, draw_problems: Draw, try_everything: type) -> None:
    problem = data.draw(draw_problems(budgets=(0, 3)))
    optimum = try_everything(problem).optimum
    if optimum == math.inf:
        with pytest.raises(BudgetError):
            solve(problem)
        return
    solution = solve(problem)
    check_claims(problem, solution)
    assert solution.status == "proven"
    assert solution.score == pytest.approx(optimum, rel=1e-12, abs=1e-12)


@some
@given(data=st.data())
def test_fixed_and_forbidden_options(data: st.DataObject, draw_problems: Draw, try_everything: type) -> None:
    problem = data.draw(draw_problems())
    fixed, forbidden = {}, {}
    for group in problem.groups:
        keys = [option.key for option in group.options]
        treatment = data.draw(st.sampled_from(["free", "fixed", "forbidden"]))
        if treatment == "fixed":
            fixed[group.key] = data.draw(st.sampled_from(keys))
        elif treatment == "forbidden" and len(keys) > 1:
            forbidden[group.key] = data.draw(st.sets(st.sampled_from(keys), max_size=len(keys) - 1))
    allowed = [
        choices
        for choices in try_everything(problem).choices
        if all(choices[key] == option for key, option in fixed.items())
        and not any(choices[key] in options for key, options in forbidden.items())
    ]
    if not allowed:
        with pytest.raises(BudgetError):
            solve(problem, fixed=fixed, forbidden=forbidden)
        return
    solution = solve(problem, fixed=fixed, forbidden=forbidden)
    assert solution.choices in allowed
    assert solution.score == pytest.approx(min(map(problem.score, allowed)), rel=1e-12, abs=1e-12)


@some
@given(data=st.data())
def test_order_does_not_matter(data: st.DataObject, draw_problems: Draw) -> None:
    problem = data.draw(draw_problems(budgets=(1, 2), sides="u"))
    shuffled = replace(
        problem,
        groups=tuple(
            replace(group, options=tuple(data.draw(st.permutations(group.options))))
            for group in data.draw(st.permutations(problem.groups))
        ),
        budgets=tuple(data.draw(st.permutations(problem.budgets))),
    )
    results = []
    for one in (problem, shuffled):
        try:
            results.append(solve(one).choices)
        except BudgetError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_of_equal_options_the_first_key_is_chosen() -> None:
    options = tuple(Option(key, 1.0, {"params": 2.0}) for key in ("c", "a", "b"))
    problem = Problem((Group("x", options), Group("y", options[::-1])), (Budget("params", upper=10),))
    assert solve(problem).choices == {"x": "a", "y": "a"}


@some
@given(data=st.data())
def test_several_solutions_are_the_best_that_differ(
    data: st.DataObject, draw_problems: Draw, try_everything: type
) -> None:
    problem = data.draw(draw_problems(budgets=(1, 2), groups=3))
    distance = data.draw(st.integers(1, len(problem.groups)))
    left = try_everything(problem).choices
    if not left:
        return
    solutions = solve_diverse(problem, count=4, min_distance=distance)
    for solution in solutions:
        check_claims(problem, solution)
        assert solution.status == "proven"
        assert solution.score == pytest.approx(min(map(problem.score, left)), rel=1e-12, abs=1e-12)
        left = [c for c in left if sum(c[key] != solution.choices[key] for key in c) >= distance]
    assert len(solutions) == 4 or not left
    pairs = [(a, b) for index, a in enumerate(solutions) for b in solutions[:index]]
    assert all(a.distance(b) >= distance for a, b in pairs)


def test_several_solutions_begin_with_the_best(layered: Callable[..., Problem]) -> None:
    problem = layered(4, 4)
    several = solve_diverse(problem, count=3, min_distance=2)
    assert [s.score for s in several] == sorted(s.score for s in several)
    assert several[0].choices == solve(problem).choices
    assert len(solve_diverse(problem, count=1)) == 1


@pytest.mark.parametrize("seconds", [1e-9, 0.1])
def test_a_time_limit_is_no_proof(tangled: Callable[..., Problem], seconds: float) -> None:
    problem = tangled(60, 12, seed=1)
    solution = solve(problem, time_limit=seconds)
    check_claims(problem, solution)
    assert solution.status == "limit"
    assert solution.gap > 1e-6
    better = solve(problem, gap=3e-3)
    assert better.status == "gap"
    assert solution.bound <= better.score


def test_a_node_limit_is_no_proof(tangled: Callable[..., Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyblock.search.proof.engine._PROOF_WIDTHS", ())
    problem = tangled(30, 10, seed=1)
    first, again = (solve(problem, node_limit=1) for _ in range(2))
    assert first.status == "limit"
    assert first.gap > 1e-6
    assert (again.choices, again.bound, again.nodes) == (first.choices, first.bound, first.nodes)


def test_a_wider_gap_is_said_to_be_one(tangled: Callable[..., Problem]) -> None:
    problem = tangled(60, 12, seed=1)
    solution = solve(problem, gap=1e-2)
    check_claims(problem, solution)
    assert solution.status == "gap"
    assert 1e-6 < solution.gap <= 1e-2


def test_unsettled_is_neither_a_solution_nor_infeasible() -> None:
    # An even sum cannot reach an odd bound, which neither the relaxation nor a narrow beam can know.
    options = tuple(Option(f"o{place}", float(place % 7), {"a": 2.0 * place + 1e-3}) for place in range(30))
    groups = tuple(Group(f"g{index}", options) for index in range(30))
    problem = Problem(groups, (Budget("a", upper=601.0, lower=600.9),))
    with pytest.raises(ExecutionError, match="not settled"):
        solve(problem, time_limit=1e-9)


def test_prices_tell_what_a_budget_is_worth(layered: Callable[..., Problem]) -> None:
    problem = layered(20, 10)
    tight, loose = (
        solve(replace(problem, budgets=(Budget("params", upper=problem.budgets[0].upper * factor),)))
        for factor in (1.0, 1.02)
    )
    saved = (tight.score - loose.score) / (0.02 * problem.budgets[0].upper)
    assert tight.prices["params"] == pytest.approx(saved, rel=0.2)


def test_without_budgets_the_best_option_of_each_group_is_chosen(layered: Callable[..., Problem]) -> None:
    problem = replace(layered(3, 5), budgets=())
    solution = solve(problem)
    assert solution.score == 0.0
    assert solution.status == "proven"
    assert set(solution.choices.values()) == {"keep=4"}


def test_a_budget_met_exactly_is_kept_whatever_the_rounding() -> None:
    options = (Option("cheap", 1.0, {"t": 0.1}), Option("dear", 0.0, {"t": 0.2}))
    groups = tuple(Group(f"g{index}", options) for index in range(3))
    assert math.fsum([0.1, 0.1, 0.1]) > 0.3
    solution = solve(Problem(groups, (Budget("t", upper=0.3),)))
    assert solution.choices == dict.fromkeys(("g0", "g1", "g2"), "cheap")


def test_counts_are_exact_at_the_size_of_models() -> None:
    large = 40_000_000_001.0
    groups = tuple(
        Group(f"g{index}", (Option("small", 1.0, {"params": large - 1}), Option("large", 0.0, {"params": large})))
        for index in range(10)
    )
    assert solve(Problem(groups, (Budget("params", upper=10 * large - 3),))).score == 3.0
    with pytest.raises(BudgetError, match=f"smallest reachable value is {10 * large - 10:.0f}"):
        solve(Problem(groups, (Budget("params", upper=10 * large - 11),)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gap": -1.0}, "gap is -1.0"),
        ({"gap": math.nan}, "gap is nan"),
        ({"time_limit": 0.0}, "time_limit is 0.0"),
        ({"node_limit": -1}, "node_limit is -1"),
        ({"count": 0}, "count is 0"),
        ({"min_distance": 9}, "number of groups, 6"),
        ({"min_distance": 0}, "min_distance is 0"),
        ({"fixed": {"block_1_fnn": "keep=1"}}, "no group 'block_1_fnn'.*\n.*'block_1_ffn'"),
        ({"fixed": {"block_1_ffn": "keep=11"}}, "no option 'keep=11'.*\n.*'keep=1'"),
        ({"forbidden": {"block_1_ffn": {"kept"}}}, "no option 'kept'"),
        ({"forbidden": {"block_1_ffn": {"keep=0", "keep=1", "keep=2"}}}, "every option of group 'block_1_ffn'"),
        ({"fixed": {"block_1_ffn": "keep=1"}, "forbidden": {"block_1_ffn": {"keep=1"}}}, "both fixed and forbidden"),
    ],
)
def test_unusable_arguments(layered: Callable[..., Problem], arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        solve_diverse(layered(3, 3), **arguments)
