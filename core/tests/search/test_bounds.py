"""Every bound that the engine claims holds, whichever part it comes from and however early that part is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from anyblock.search import Budget, Group, Option, Problem, solve
from anyblock.search.highs import solve_mip
from anyblock.search.instance import compile_problem, tighten
from anyblock.search.proof.dynamic import sweep_groups
from anyblock.search.proof.engine import _drop
from anyblock.search.proof.exchange import exchange
from anyblock.search.proof.lagrange import lagrangian, lagrangian_bound
from hypothesis import given, settings
from hypothesis import strategies as st

Draw = Callable[..., st.SearchStrategy[Problem]]
some = settings(deadline=None, derandomize=True, max_examples=60)
SLACK = 1e-9


@some
@given(data=st.data())
def test_the_lagrangian_bound(data: st.DataObject, draw_problems: Draw, try_everything: type) -> None:
    problem = data.draw(draw_problems())
    optimum = try_everything(problem).optimum
    instance = compile_problem(problem).instance
    assert lagrangian_bound(instance).value <= optimum + SLACK
    multipliers = [data.draw(st.floats(0, 10)) for _ in instance.limit]
    value, reduced, chosen = lagrangian(instance, multipliers)
    assert value <= optimum + SLACK
    assert (reduced >= 0).all()
    assert (reduced[chosen] == 0).all()


@pytest.mark.parametrize("costs", [1, 3])
def test_the_lagrangian_bound_equals_the_linear_relaxation(layered: Callable[..., Problem], costs: int) -> None:
    from anyblock.search.highs import _model, new_solver, run

    instance = compile_problem(layered(20, 10, costs=costs)).instance
    relaxation = _model(instance, 1.0)
    relaxation.integrality_ = []
    solver = new_solver()
    solver.passModel(relaxation)
    run(solver)
    assert lagrangian_bound(instance).value == pytest.approx(solver.getInfo().objective_function_value, rel=1e-7)


@some
@given(data=st.data(), width=st.sampled_from([1, 2, 5, 1000]), steps=st.sampled_from([0, 1, 3, 99]))
def test_the_dynamic_program(
    data: st.DataObject, width: int, steps: int, draw_problems: Draw, try_everything: type
) -> None:
    problem = data.draw(draw_problems())
    optimum = try_everything(problem).optimum
    instance = compile_problem(problem).instance
    relaxed = lagrangian_bound(instance)
    if relaxed.value == math.inf:
        return
    ceiling = data.draw(st.sampled_from([math.inf, relaxed.value + 1.0, max(optimum, relaxed.value) + 1e-6]))
    asked = iter(range(1000))
    found = sweep_groups(instance, relaxed, ceiling=ceiling, width=width, expired=lambda: next(asked) >= steps)
    assert min(found.bound, ceiling) <= optimum + SLACK
    assert found.states <= width
    if found.chosen is not None:
        assert instance.feasible(found.chosen)
        assert instance.score[found.chosen].sum() == pytest.approx(found.score, abs=1e-12)
        assert found.score < ceiling
    elif width == 1000 and steps == 99:
        assert optimum >= ceiling - SLACK


@some
@given(data=st.data())
def test_exchanges_find_what_is_feasible_and_that_no_pair_improves(
    data: st.DataObject, draw_problems: Draw, try_everything: type
) -> None:
    problem = data.draw(draw_problems())
    everything = try_everything(problem)
    compiled = compile_problem(problem)
    relaxed = lagrangian_bound(compiled.instance)
    chosen = None if relaxed.value == math.inf else exchange(compiled.instance, relaxed)
    if chosen is None:
        return
    found = compiled.choices(chosen)
    assert compiled.instance.feasible(chosen)
    assert problem.keeps(found)
    for other in everything.choices:
        if sum(found[group] != other[group] for group in other) <= 2:
            assert problem.score(found) <= problem.score(other) + SLACK


def test_exchanges_of_two(layered: Callable[..., Problem]) -> None:
    """Where one group has to give what the other takes, no exchange of one is feasible and better."""
    give = Group("give", (Option("a", 1.0, {"params": 4.0}), Option("b", 1.4, {"params": 2.0})))
    take = Group("take", (Option("a", 3.0, {"params": 4.0}), Option("b", 1.0, {"params": 6.0})))
    compiled = compile_problem(Problem((give, take), (Budget("params", upper=8.0),)))
    chosen = exchange(compiled.instance, lagrangian_bound(compiled.instance))
    assert chosen is not None
    assert compiled.choices(chosen) == {"give": "b", "take": "b"}
    compiled = compile_problem(layered(60, 20, costs=3))
    bound = lagrangian_bound(compiled.instance)
    chosen = exchange(compiled.instance, bound)
    assert chosen is not None
    assert compiled.instance.score[chosen].sum() <= 1.01 * bound.value


@some
@given(data=st.data())
def test_highs(data: st.DataObject, draw_problems: Draw, try_everything: type) -> None:
    problem = data.draw(draw_problems())
    optimum = try_everything(problem).optimum
    instance = compile_problem(problem).instance
    result = solve_mip(instance, gap=0.0, seconds=60, nodes=None, seed=0, start=None, stopped=lambda: False)
    assert result.bound <= optimum + 1e-6
    if result.chosen is not None and instance.feasible(result.chosen):
        assert instance.score[result.chosen].sum() == pytest.approx(optimum, abs=1e-6)


@contextmanager
def highs_alone() -> Iterator[None]:
    """Leave nothing of the dynamic program but the last resort, and that as narrow as can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyblock.search.proof.engine._CEILINGS", ())
        patch.setattr("anyblock.search.proof.engine._LAST_WIDTH", 1)
        yield


@some
@given(data=st.data())
def test_solutions_by_highs_alone(data: st.DataObject, draw_problems: Draw, try_everything: type) -> None:
    problem = data.draw(draw_problems())
    optimum = try_everything(problem).optimum
    if optimum == math.inf:
        return
    with highs_alone():
        solution = solve(problem)
    assert problem.keeps(solution.choices)
    assert solution.bound <= optimum + SLACK
    assert solution.score == pytest.approx(optimum, rel=1e-6, abs=1e-6)


def test_what_only_the_tolerance_of_highs_lets_through_is_cut_off() -> None:
    large = 40_000_000_001.0
    options = (Option("small", 1.0, {"params": large - 1}), Option("large", 0.0, {"params": large}))
    problem = Problem(tuple(Group(f"g{i}", options) for i in range(4)), (Budget("params", upper=4 * large - 2),))
    instance = compile_problem(problem).instance
    first = solve_mip(instance, gap=0.0, seconds=60, nodes=None, seed=0, start=None, stopped=lambda: False)
    assert not instance.feasible(first.chosen)
    with highs_alone():
        solution = solve(problem)
    assert (solution.score, solution.status) == (2.0, "proven")


@pytest.mark.parametrize("seed", range(8))
def test_narrow_sweeps_of_crowded_problems(tangled: Callable[..., Problem], try_everything: type, seed: int) -> None:
    problem = tangled(5, 5, costs=2, seed=seed)
    optimum = try_everything(problem).optimum
    instance = compile_problem(problem).instance
    relaxed = lagrangian_bound(instance)
    for width in (1, 2, 4, 8, 5000):
        found = sweep_groups(instance, relaxed, ceiling=math.inf, width=width, expired=lambda: False)
        assert found.bound <= optimum + SLACK
        assert found.score >= optimum - SLACK
    assert found.score == pytest.approx(optimum, rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_fixing_keeps_every_option_of_a_choice_below_the_ceiling(
    tangled: Callable[..., Problem], try_everything: type, seed: int
) -> None:
    problem = tangled(5, 5, costs=2, seed=seed)
    compiled = compile_problem(problem)
    relaxed = lagrangian_bound(compiled.instance)
    known = try_everything(problem)
    dropped = 0
    for ceiling in (known.optimum, 1.05 * known.optimum, 1.2 * known.optimum):
        work, part = _drop(compiled.instance, relaxed, ceiling)
        assert len(part.reduced) == len(work.score)
        dropped += len(compiled.instance.score) - len(work.score)
        kept = {(compiled.groups[g].key, compiled.keys[i]) for g, i in zip(work.group_of(), work.index, strict=True)}
        for choices in known.choices:
            if problem.score(choices) <= ceiling:
                assert set(choices.items()) <= kept
    assert dropped


@some
@given(data=st.data())
def test_tightened_limits_lose_no_choice(data: st.DataObject, draw_problems: Draw) -> None:
    import numpy as np

    instance = compile_problem(data.draw(draw_problems())).instance
    tight = tighten(instance)
    assert (tight.limit + tight.slack <= instance.limit + instance.slack).all()
    spans = [range(a, b) for a, b in zip(instance.start[:-1], instance.start[1:], strict=True)]
    for _ in range(20):
        chosen = np.array([data.draw(st.sampled_from(span)) for span in spans])
        assert tight.feasible(chosen) == instance.feasible(chosen)
