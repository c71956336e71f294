"""The Lagrangian bound of an instance.

`L(m) = sum_g min_j (score[j] + m.rows[:, j]) - m.limit` is a lower bound for every `m >= 0`; its maximum equals the linear
relaxation (Geoffrion, "Lagrangean relaxation for integer programming", 1974) and is found by cutting planes (Kelley, "The
cutting-plane method for solving convex programs", 1960) in one variable a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyblock.search.highs import new_solver

if TYPE_CHECKING:
    from anyblock.search.instance import Floats, Instance, Ints

_ROUNDS: Final = 300
_TOLERANCE: Final = 1e-10
_BOX: Final = 1e3
_BOX_GROWTH: Final = 1e3
_BOX_LIMIT: Final = 1e13


@dataclass(frozen=True)
class Bound:
    """A lower bound and the multipliers it comes from.

    Attributes:
        value: no feasible choice scores less; infinite when no choice is feasible.
        multipliers: `[rows]`, at least zero.
        reduced: `[options]`, how much choosing an option raises the bound (its reduced cost less its group's least).
        pool: `[cuts, rows]`, multipliers tried on the way, the best first.
    """

    value: float
    multipliers: Floats
    reduced: Floats
    pool: Floats


def evaluate(instance: Instance, multipliers: Floats) -> tuple[float, Floats, Ints]:
    """Return `L(multipliers)`, the reduced costs over each group's least `[options]`, and the minimisers `[groups]`."""
    import numpy as np

    cost = instance.score + multipliers @ instance.rows
    least = np.minimum.reduceat(cost, instance.start[:-1])
    over = cost - np.repeat(least, np.diff(instance.start))
    hits = np.flatnonzero(over == 0.0)
    chosen = hits[np.searchsorted(hits, instance.start[:-1])]
    return float(least.sum() - multipliers @ (instance.limit + instance.slack)), over, chosen


def lagrangian_bound(instance: Instance) -> Bound:
    """Maximise the Lagrangian bound; a value of infinity proves that no choice is feasible, even a fractional one."""
    import numpy as np

    rows = len(instance.limit)
    size = np.abs(instance.rows).max(axis=1, initial=0.0)
    size[size == 0.0] = 1.0
    spread = float(np.ptp(instance.score)) or 1.0
    unit = spread / size  # multipliers are searched in this unit, so that one box fits every row
    ceiling = float(np.maximum.reduceat(instance.score, instance.start[:-1]).sum())
    best, best_at = -np.inf, np.zeros(rows)
    tried: list[tuple[float, Floats]] = []
    box = _BOX
    master = _master(rows, box)
    at = np.zeros(rows)
    for _ in range(_ROUNDS):
        value, _, chosen = evaluate(instance, at * unit)
        tried.append((value, at))
        if value > best:
            best, best_at = value, at
        if best > ceiling + _TOLERANCE * (abs(ceiling) + spread):
            return Bound(np.inf, best_at * unit, np.zeros_like(instance.score), np.array([best_at * unit]))
        if rows == 0:
            break
        slope = (instance.rows[:, chosen].sum(axis=1) - instance.limit - instance.slack) * unit / spread
        _add_cut(master, value / spread - slope @ at, slope)
        model_value, at = _solve_master(master, rows)
        if model_value * spread - best <= _TOLERANCE * max(abs(best), spread):
            if box >= _BOX_LIMIT or not np.any(best_at >= box * (1 - 1e-9)):
                break
            box *= _BOX_GROWTH
            for row in range(rows):
                master.changeColBounds(row, 0.0, box)
            model_value, at = _solve_master(master, rows)
    tried.sort(key=lambda item: -item[0])
    value, over, _ = evaluate(instance, best_at * unit)
    return Bound(value, best_at * unit, over, np.array([at for _, at in tried]) * unit)


def _master(rows: int, box: float) -> object:
    import numpy as np

    solver = new_solver()
    for _ in range(rows):
        solver.addCol(0.0, 0.0, box, 0, np.array([], dtype=np.int32), np.array([]))
    solver.addCol(-1.0, -np.inf, 1e30, 0, np.array([], dtype=np.int32), np.array([]))
    return solver


def _add_cut(master, constant: float, slope: Floats) -> None:
    import numpy as np

    # t - slope . m <= constant
    master.addRow(-np.inf, constant, len(slope) + 1, np.arange(len(slope) + 1), np.append(-slope, 1.0))


def _solve_master(master, rows: int) -> tuple[float, Floats]:
    import numpy as np

    master.run()
    values = np.array(master.getSolution().col_value)
    return float(values[rows]), values[:rows]
