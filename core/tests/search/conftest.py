"""Small random problems, and their solution by trying everything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from anyblock.search import Budget, Group, Option, Problem
from hypothesis import strategies as st

COSTS = ("latency", "memory", "params")


@dataclass(frozen=True)
class Everything:
    """Every choice that keeps the budgets."""

    problem: Problem
    choices: list[dict[str, str]] = field(init=False)
    optimum: float = field(init=False)

    def __post_init__(self) -> None:
        kept = [choices for choices in everything(self.problem) if self.problem.keeps(choices)]
        object.__setattr__(self, "choices", kept)
        object.__setattr__(self, "optimum", min(map(self.problem.score, kept), default=math.inf))

    def values(self, cost: str) -> list[float]:
        """Return every reachable value of a cost."""
        return [self.problem.costs(choices)[cost] for choices in self.choices]


def everything(problem: Problem) -> Iterator[dict[str, str]]:
    for options in itertools.product(*(group.options for group in problem.groups)):
        yield {group.key: option.key for group, option in zip(problem.groups, options, strict=True)}


@st.composite
def problems(
    draw: st.DrawFn, *, budgets: tuple[int, int] = (1, 3), groups: int = 4, options: int = 4, sides: str = "ulr"
) -> Problem:
    """Draw a problem with few distinct numbers, so that ties and equal sums are common, or with arbitrary ones."""
    whole = st.integers(0, 5).map(float)
    number = draw(st.sampled_from([whole, st.one_of(whole, st.floats(0, 5, allow_subnormal=False))]))
    score = draw(st.sampled_from([whole, st.floats(-2, 5, allow_subnormal=False), st.just(0.0)]))
    made = tuple(
        Group(
            f"g{index}",
            tuple(
                Option(f"o{place}", draw(score), {cost: draw(number) for cost in COSTS})
                for place in range(draw(st.integers(1, options)))
            ),
        )
        for index in range(draw(st.integers(1, groups)))
    )
    fixed = {cost: draw(number) for cost in draw(st.sets(st.sampled_from(COSTS)))}
    wanted = draw(st.lists(st.sampled_from(COSTS), unique=True, min_size=budgets[0], max_size=budgets[1]))
    bounds = []
    for cost in wanted:
        top = fixed.get(cost, 0.0) + sum(max(option.costs[cost] for option in group.options) for group in made)
        low, high = sorted(draw(st.integers(0, 20)) / 20 * top for _ in range(2))
        side = draw(st.sampled_from(sides))
        bounds.append(Budget(cost, upper=high if side in "ur" else None, lower=low if side in "lr" else None))
    return Problem(made, tuple(bounds), fixed)


@pytest.fixture(scope="session")
def draw_problems() -> Callable[..., st.SearchStrategy[Problem]]:
    """The strategy `problems`, for `data.draw`."""
    return problems


@pytest.fixture(scope="session")
def try_everything() -> type[Everything]:
    """Solve a problem by trying everything."""
    return Everything


@pytest.fixture(scope="session")
def layered() -> Callable[..., Problem]:
    """Return problems like those of a model: the same costs in every layer, scores by random importance."""

    def make(layers: int, options: int, *, costs: int = 1, share: float = 0.55, seed: int = 0) -> Problem:
        import numpy as np

        random = np.random.default_rng(seed)
        groups = []
        for layer in range(layers):
            for kind, width, heads in (("attention", 1_000, 8), ("ffn", 3_000, 0)):
                weight = random.lognormal()
                made = []
                for place in range(options):
                    kept = place / (options - 1)
                    used = (
                        float(round(kept * width)),
                        float(round(kept * heads)),
                        float(kept * width * random.uniform(0.95, 1.05)),
                    )
                    score = float(weight * (1 - kept) ** 2 * random.uniform(0.9, 1.1))
                    named = dict(zip(("params", "kv_heads", "latency"), used, strict=True))
                    made.append(Option(f"keep={place}", score, named))
                groups.append(Group(f"block_{layer}_{kind}", tuple(made), kind))
        bounds = [
            Budget(cost, upper=share * sum(max(o.costs[cost] for o in g.options) for g in groups))
            for cost in ("params", "latency", "kv_heads")[:costs]
        ]
        return Problem(tuple(groups), tuple(bounds))

    return make


@pytest.fixture(scope="session")
def tangled() -> Callable[..., Problem]:
    """Return problems whose costs are all different and trade off against one another: hard to prove."""

    def make(groups: int, options: int, *, costs: int = 3, seed: int = 0) -> Problem:
        import numpy as np

        random = np.random.default_rng(seed)
        names = [f"cost_{index}" for index in range(costs)]
        made = []
        for index in range(groups):
            used = random.uniform(0, 1, (options, costs))
            scores = random.lognormal(0, 0.5) * np.exp(-used.sum(axis=1)) * random.uniform(0.8, 1.2, options)
            rows = zip(scores.tolist(), used.tolist(), strict=True)
            named = [(score, dict(zip(names, row, strict=True))) for score, row in rows]
            made.append(Group(f"g{index}", tuple(Option(f"o{n}", *row) for n, row in enumerate(named))))
        return Problem(tuple(made), tuple(Budget(name, upper=0.5 * groups) for name in names))

    return make
