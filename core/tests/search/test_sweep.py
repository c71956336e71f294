"""Fronts of solutions, and the baseline with one shape for all layers."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from anyblock.errors import BudgetError, UsageError
from anyblock.search import (
    Budget,
    Group,
    Option,
    Problem,
    Solution,
    homogeneous,
    solve,
    sweep,
    sweep_csv,
    sweep_json,
    sweep_rows,
)
from anyblock.search.sweep import _carry
from hypothesis import given, settings
from hypothesis import strategies as st


def test_a_front_equals_single_searches(layered: Callable[..., Problem]) -> None:
    problem = replace(layered(6, 6, costs=2), fixed_costs={"params": 5.0})
    top = problem.budgets[1].upper
    points = sweep(problem, "params", [top, 0.5 * top, 0.8 * top, 0.8 * top, 1.0])
    assert [point.value for point in points] == [1.0, 0.5 * top, 0.8 * top, top]
    assert points[0].solution is None
    assert "params <= 1: the smallest reachable value is 5" in points[0].reason
    for point in points[1:]:
        alone = solve(replace(problem, budgets=(problem.budgets[0], Budget("params", upper=point.value))))
        assert point.solution is not None
        assert (point.solution.choices, point.solution.score) == (alone.choices, alone.score)
    scores = [point.solution.score for point in points if point.solution]
    assert scores == sorted(scores, reverse=True)


def test_rows_as_csv_and_json(layered: Callable[..., Problem]) -> None:
    problem = layered(3, 4)
    points = sweep(problem, "params", [3000.0, 7000.0])
    rows = sweep_rows(points)
    assert rows[1]["asked"] == 7000.0
    assert rows[1]["costs.params"] <= 7000.0
    read = list(csv.DictReader(io.StringIO(sweep_csv(points))))
    assert [float(row["score"]) for row in read] == [row["score"] for row in rows]
    again = json.loads(sweep_json(points))
    assert [row.pop("choices") for row in again] == [point.solution and point.solution.choices for point in points]
    assert again == rows


def test_rows_without_a_solution_are_marked() -> None:
    problem = Problem((Group("g", (Option("a", 0.0, {"params": 5.0}),)),))
    points = sweep(problem, "params", [4.0, 5.0])
    assert [row["status"] for row in sweep_rows(points)] == ["infeasible", "proven"]
    assert sweep_csv(points).splitlines()[1] == "params,4.0,infeasible,,,,,"


def test_what_a_tighter_budget_found_is_not_lost() -> None:
    tight = Solution({"g": "a"}, 1.0, 0.9, 0.1, "limit", {"params": 4.0}, 1.0)
    loose = Solution({"g": "b"}, 2.0, 0.8, 0.6, "limit", {"params": 9.0}, 2.0, 7)
    carried = _carry(tight, loose)
    assert carried == Solution({"g": "a"}, 1.0, 0.8, pytest.approx(0.2), "limit", {"params": 4.0}, 2.0, 7)


def test_a_sweep_needs_values(layered: Callable[..., Problem]) -> None:
    with pytest.raises(UsageError, match="no values"):
        sweep(layered(2, 2), "params", [])
    with pytest.raises(UsageError, match="does not state"):
        sweep(layered(2, 2), "parms", [1.0])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(data=st.data())
def test_the_best_uniform_choice(data: st.DataObject) -> None:
    number = st.integers(0, 6).map(float)
    groups = []
    for kind, layers in (("attention", 3), ("ffn", data.draw(st.integers(1, 4)))):
        for layer in range(layers):
            labels = data.draw(st.permutations(["w=1", "w=2", "w=3"]))
            extra = (Option("own", data.draw(number), {"params": data.draw(number)}),) if layer == 1 else ()
            options = (
                Option(f"{label}@{layer}", data.draw(number), {"params": data.draw(number)}, label) for label in labels
            )
            groups.append(Group(f"{kind}_{layer}", (*options, *extra), kind))
    limit = data.draw(st.integers(10, 40))
    problem = Problem(tuple(groups), (Budget("params", upper=limit),), {"params": 2.0})
    best = None
    for attention, ffn in itertools.product(["w=1", "w=2", "w=3"], repeat=2):
        label = {"attention": attention, "ffn": ffn}
        choices = {g.key: next(o.key for o in g.options if o.label == label[g.kind]) for g in groups}
        if problem.keeps(choices):
            best = min(best or (problem.score(choices),), (problem.score(choices),))
    if best is None:
        with pytest.raises(BudgetError, match="with the same option in all groups of a kind, "):
            homogeneous(problem)
        return
    found = homogeneous(problem)
    assert found.score == best[0] == problem.score(found.choices)
    assert found.status == "proven"
    assert problem.keeps(found.choices)
    assert found.costs == problem.costs(found.choices)
    chosen = {(g.kind, g.option(found.choices[g.key]).label) for g in groups}
    assert len(chosen) == 2
    assert solve(problem).score <= found.score


def test_kinds_without_a_common_label_are_named() -> None:
    groups = (Group("a", (Option("x", 0.0),), "ffn"), Group("b", (Option("y", 0.0),), "ffn"))
    with pytest.raises(UsageError, match="2 groups of kind 'ffn' have no label in common"):
        homogeneous(Problem(groups))
    twice = Group("a", (Option("x", 0.0, {}, "w"), Option("y", 0.0, {}, "w")), "ffn")
    with pytest.raises(UsageError, match="'x' and 'y' of group 'a' have the same label 'w'"):
        homogeneous(Problem((twice,)))
