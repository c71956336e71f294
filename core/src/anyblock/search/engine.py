"""From a bound to a proof: Lagrangian bound, dynamic programming, then HiGHS on what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyblock.search.dynamic import sweep_groups
from anyblock.search.highs import solve_mip
from anyblock.search.lagrange import Bound, lagrangian_bound
from anyblock.search.solution import relative_gap

if TYPE_CHECKING:
    from anyblock.search.instance import Floats, Instance, Ints

_WIDTHS: Final = (300, 3000, 20000)
_STEPS: Final = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        gap: stop when the relative gap is at most this.
        deadline: stop at this `time.perf_counter()`.
        nodes: HiGHS opens at most so many nodes; None means no limit.
        seed: HiGHS's random seed.
    """

    gap: float
    deadline: float
    nodes: int | None
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What is known when the search stops.

    Attributes:
        chosen: position of each group's option in the *unfiltered* instance, `[groups]`; None without a solution.
        score: summed score; infinite without a solution.
        bound: no feasible choice scores less; infinite when none is feasible.
        nodes: nodes HiGHS opened.
        multipliers: of the Lagrangian bound, `[rows]`.
    """

    chosen: Ints | None
    score: float
    bound: float
    nodes: int
    multipliers: Floats


def optimise(instance: Instance, limits: Limits) -> Outcome:
    """Find the choice of least score and prove how good it is, until `limits`."""
    import numpy as np

    relaxed = lagrangian_bound(instance)
    if relaxed.value == np.inf:
        return Outcome(None, np.inf, np.inf, 0, relaxed.multipliers)
    best: Ints | None = None
    score, bound = np.inf, relaxed.value
    scale = max(abs(relaxed.value), 1e-6 * float(np.ptp(instance.score)))
    work, reduced = instance, relaxed
    for width in _WIDTHS:
        for step in _STEPS if best is None else (np.inf,):
            ceiling = min(score, relaxed.value + step * scale)
            work, reduced = _drop(instance, relaxed, ceiling)
            found = sweep_groups(work, reduced, ceiling=ceiling, width=width, deadline=limits.deadline)
            bound = max(bound, min(found.bound, ceiling))
            if found.chosen is not None and found.score < score:
                best, score = work.index[found.chosen], found.score
                break
        if best is not None and relative_gap(score, bound) <= limits.gap or time.perf_counter() > limits.deadline:
            return Outcome(best, score, min(bound, score), 0, relaxed.multipliers)
    return _finish(instance, relaxed, best, score, bound, limits)


def _finish(
    instance: Instance, relaxed: Bound, best: Ints | None, score: float, bound: float, limits: Limits
) -> Outcome:
    import numpy as np

    work, _ = _drop(instance, relaxed, score)
    start = None if best is None else np.searchsorted(work.index, best)
    if start is not None and not np.array_equal(work.index[start], best):
        start = None
    result = solve_mip(
        work,
        gap=limits.gap,
        time_limit=limits.deadline - time.perf_counter(),
        node_limit=limits.nodes,
        seed=limits.seed,
        start=start,
    )
    if result.chosen is not None and work.feasible(result.chosen):
        value = float(work.score[result.chosen].sum())
        if value < score:
            best, score = work.index[result.chosen], value
    bound = max(bound, min(result.bound, score))
    return Outcome(best, score, bound, result.nodes, relaxed.multipliers)


def _drop(instance: Instance, relaxed: Bound, ceiling: float) -> tuple[Instance, Bound]:
    """Drop the options that no choice at or below `ceiling` uses (reduced-cost fixing)."""
    import numpy as np

    margin = 1e-9 * (abs(relaxed.value) + float(np.ptp(instance.score)))
    mask = relaxed.value + relaxed.reduced <= ceiling + margin
    if mask.all():
        return instance, relaxed
    return instance.keep(mask), Bound(relaxed.value, relaxed.multipliers, relaxed.reduced[mask], relaxed.pool)
