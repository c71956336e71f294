"""From a bound to a proof: Lagrangian bound, exchanges, dynamic programming, then HiGHS on what is left."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from anyblock.search.highs import solve_mip
from anyblock.search.instance import tighten
from anyblock.search.proof.dynamic import sweep_groups
from anyblock.search.proof.exchange import exchange
from anyblock.search.proof.lagrange import LagrangianBound, lagrangian_bound
from anyblock.search.solution import PROOF_GAP, relative_gap

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyblock.search.instance import Instance, Ints

_T = TypeVar("_T")
_FIRST_WIDTH: Final = 400
_LAST_WIDTH: Final = 100
_PROOF_WIDTHS: Final = (4_000, 16_000, 64_000)
_MOMENT: Final = 800_000
"""Width times options of a sweep that takes a moment: 0.2 seconds of an Intel Xeon at 2.3 GHz."""
_CEILINGS: Final = (1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.5e-2, 1e-1, float("inf"))
_ROUNDING: Final = 1e-12
_CUT_TRIES: Final = 20


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        gap: stop when the relative gap is at most this.
        seconds: stop after so much wall time; inexact, since one step of the search is not broken off.
        nodes: HiGHS opens at most so many nodes; None means no limit.
        seed: HiGHS's random seed.
    """

    gap: float
    seconds: float
    nodes: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What is known when the search stops.

    Attributes:
        chosen: position of each group's option in the unfiltered instance, `[groups]`; None without a solution.
        score: summed score; infinite without a solution.
        bound: no feasible choice scores less; infinite when none is feasible.
        nodes: nodes that HiGHS opened.
        multipliers: of the Lagrangian bound, one a row of the instance.
    """

    chosen: Ints | None
    score: float
    bound: float
    nodes: int
    multipliers: tuple[float, ...]


def optimise(instance: Instance, limits: Limits) -> Outcome:
    """Find the choice of least score and prove how good it is, until `limits`."""
    return _run_apart(lambda stop: _Search(instance, limits, stop).run())


class _Search:
    def __init__(self, instance: Instance, limits: Limits, stop: threading.Event) -> None:
        import numpy as np

        self.instance = instance = tighten(instance)
        self.limits = limits
        self.stop = stop
        self.deadline = time.perf_counter() + limits.seconds
        self.relaxed = lagrangian_bound(instance)
        self.best: Ints | None = None
        self.score = float("inf")
        self.bound = self.relaxed.value
        self.nodes = 0
        # Differences below this are rounding, also where positive and negative scores cancel.
        heads = instance.start[:-1]
        self.rounding = _ROUNDING * float(np.maximum.reduceat(np.abs(instance.score), heads).sum())

    def run(self) -> Outcome:
        """Search until the solution is proven, within the asked gap, or the limits are reached."""
        if self.bound < float("inf"):
            self._find()
        if self.best is not None:
            for width in _PROOF_WIDTHS:
                # A sweep that takes a moment and proves many a problem is worth it within the asked gap, too.
                worthwhile = width * self._left() <= _MOMENT
                if self._done(PROOF_GAP if worthwhile else None):
                    break
                self._sweep(self.score if worthwhile else self._target(), width)
        if not self._done():
            self._finish()
        if self.best is None and self.bound < float("inf"):
            # Out of time, or HiGHS found nothing: a narrow sweep takes a moment and may save the answer.
            self._sweep(float("inf"), _LAST_WIDTH, expired=self.stop.is_set)
            self._done()
        return Outcome(self.best, self.score, self.bound, self.nodes, tuple(map(float, self.relaxed.multipliers)))

    def expired(self) -> bool:
        return self.stop.is_set() or time.perf_counter() >= self.deadline

    def _done(self, gap: float | None = None) -> bool:
        if self.score - self.bound <= self.rounding:
            self.bound = self.score
        wanted = self.limits.gap if gap is None else min(gap, self.limits.gap)
        return self.expired() or self.bound == float("inf") or relative_gap(self.score, self.bound) <= wanted

    def _find(self) -> None:
        """Look for a first solution by exchanges, then for one not far above the bound, and farther when there is none."""
        import numpy as np

        chosen = exchange(self.instance, self.relaxed)
        if chosen is not None:
            self._take(chosen, float(self.instance.score[chosen].sum()))
        scale = max(abs(self.relaxed.value), 1e-3 * float(np.ptp(self.instance.score))) or 1.0
        for step in _CEILINGS:
            if self._done(PROOF_GAP):
                return
            known, ceiling = self.score, self.relaxed.value + step * scale
            self._sweep(min(ceiling, known), _FIRST_WIDTH)
            if self.score < known or ceiling >= known:
                return

    def _left(self) -> int:
        """Return how many options a better solution may use."""
        return int((self.relaxed.value + self.relaxed.reduced < self.score).sum())

    def _target(self) -> float:
        """Return what a better solution has to stay below: the best score, less the gap that need not be closed."""
        slack = self.limits.gap * abs(self.score) if self.limits.gap > PROOF_GAP else 0.0
        return self.score - slack * (1 - _ROUNDING)

    def _sweep(self, ceiling: float, width: int, expired: Callable[[], bool] | None = None) -> None:
        work, relaxed = _drop(self.instance, self.relaxed, ceiling)
        found = sweep_groups(work, relaxed, ceiling=ceiling, width=width, expired=expired or self.expired)
        if found.chosen is not None:
            self._take(work.index[found.chosen], found.score)
        self._raise_bound(min(found.bound, ceiling))

    def _finish(self) -> None:
        """Let HiGHS prove the rest; a choice that only its tolerance lets through is cut off, and it runs again."""
        import numpy as np

        work, _ = _drop(self.instance, self.relaxed, self.score)
        start = None if self.best is None else np.searchsorted(work.index, self.best)
        for _ in range(_CUT_TRIES):
            result = solve_mip(
                work,
                gap=self.limits.gap if self.limits.gap > PROOF_GAP else self.limits.gap / 2,
                seconds=self.deadline - time.perf_counter(),
                nodes=self.limits.nodes,
                seed=self.limits.seed,
                start=start,
                stopped=self.expired,
            )
            self.nodes += result.nodes
            self._raise_bound(result.bound)
            if result.chosen is None or work.feasible(result.chosen):
                break
            row = np.zeros(len(work.score))
            row[result.chosen] = 1.0
            work = work.with_row(row, work.groups - 1.0, "cut")
        if result.chosen is not None and work.feasible(result.chosen):
            self._take(work.index[result.chosen], float(work.score[result.chosen].sum()))
        self._done()

    def _take(self, chosen: Ints, score: float) -> None:
        if score < self.score:
            self.best, self.score = chosen, score

    def _raise_bound(self, bound: float) -> None:
        self.bound = min(max(self.bound, bound), self.score)


def _drop(instance: Instance, relaxed: LagrangianBound, ceiling: float) -> tuple[Instance, LagrangianBound]:
    """Drop the options that no choice up to `ceiling` uses (reduced-cost fixing)."""
    import numpy as np

    mask = relaxed.value + relaxed.reduced <= ceiling + 1e-9 * max(abs(relaxed.value), float(np.ptp(instance.score)))
    if mask.all():
        return instance, relaxed
    return instance.keep(mask), LagrangianBound(relaxed.value, relaxed.multipliers, relaxed.reduced[mask], relaxed.pool)


def _run_apart(work: Callable[[threading.Event], _T]) -> _T:
    """Return `work(stop)`, run in a fresh thread; its exception is raised here.

    HiGHS keeps one scheduler per thread, and refuses to run where another part of the program has started it with another number
    of threads. The calling thread stays free to receive Ctrl-C meanwhile.

    When the calling thread is interrupted, `stop` is set, and the interrupt is raised again once `work` has returned.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="anyblock-search") as pool:
        try:
            return pool.submit(work, stop).result()
        except BaseException:
            stop.set()
            raise
