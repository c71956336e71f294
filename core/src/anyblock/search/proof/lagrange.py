"""The Lagrangian bound of an instance.

`L(m) = sum_g min_j (score[j] + m.rows[:, j]) - m.limit` is a lower bound for every `m >= 0`; its maximum equals the linear
relaxation (Geoffrion, "Lagrangean relaxation for integer programming", 1974) and is found by cutting planes (Kelley, "The
cutting-plane method for solving convex programs", 1960) in one variable a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyblock.search.highs import new_solver, run

if TYPE_CHECKING:
    from anyblock.search.instance import Floats, Instance, Ints

_ROUNDS: Final = 300
_TOLERANCE: Final = 1e-9
_ROUNDING: Final = 1e-12
_BOX: Final = 1e3
_WIDEST_BOX: Final = 1e9
_POOL: Final = 12


@dataclass(frozen=True)
class LagrangianBound:
    """A lower bound and the multipliers it comes from.

    Attributes:
        value: no feasible choice scores less; infinite when no choice is feasible.
        multipliers: `[rows]`, at least zero.
        reduced: `[options]`, how much choosing an option raises the bound (its reduced cost less its group's least).
        pool: `[some, rows]`, the best multipliers tried on the way, best first.
    """

    value: float
    multipliers: Floats
    reduced: Floats
    pool: Floats


def lagrangian(instance: Instance, multipliers: Floats) -> tuple[float, Floats, Ints]:
    """Return `L(multipliers)`, the reduced costs over each group's least `[options]`, and the minimisers `[groups]`."""
    import numpy as np

    cost = instance.score + multipliers @ instance.rows
    least = np.minimum.reduceat(cost, instance.start[:-1])
    over = cost - np.repeat(least, np.diff(instance.start))
    zeros = np.flatnonzero(over == 0.0)
    chosen = zeros[np.searchsorted(zeros, instance.start[:-1])]
    return float(least.sum() - multipliers @ (instance.limit + instance.slack)), over, chosen


def lagrangian_bound(instance: Instance) -> LagrangianBound:
    """Maximise the Lagrangian bound; a value of infinity proves that no choice is feasible, not even a fractional one."""
    import numpy as np

    rows = len(instance.limit)
    size = np.abs(instance.rows).max(axis=1, initial=0.0)
    size[size == 0.0] = 1.0
    spread = float(np.ptp(instance.score)) or 1.0
    unit = spread / size  # with multipliers in this unit, one box fits every row
    highest = float(np.maximum.reduceat(instance.score, instance.start[:-1]).sum())
    tried: list[tuple[float, Floats]] = []
    master = _Master(rows)
    best, best_at, at = -np.inf, np.zeros(rows), np.zeros(rows)
    for _ in range(_ROUNDS):
        value, _, chosen = lagrangian(instance, at * unit)
        tried.append((value, at))
        if value > best:
            best, best_at = value, at
        if best > highest + _ROUNDING * (abs(highest) + spread * (1.0 + instance.groups * at.sum())):
            return LagrangianBound(np.inf, best_at * unit, np.zeros_like(instance.score), best_at[None] * unit)
        if rows == 0:
            break
        slope = (instance.rows[:, chosen].sum(axis=1) - instance.limit - instance.slack) / size
        master.cut(value / spread - float(slope @ at), slope)
        limit, at = master.solve()
        if limit * spread - best <= _TOLERANCE * max(abs(best), spread):
            if not master.widen(best_at):
                break
            _, at = master.solve()
    tried.sort(key=lambda item: -item[0])
    value, over, _ = lagrangian(instance, best_at * unit)
    return LagrangianBound(value, best_at * unit, over, np.array([at for _, at in tried[:_POOL]]) * unit)


class _Master:
    """The cutting planes seen so far: `max t` with `t <= constant + slope . m` for each, `m` in a box."""

    def __init__(self, rows: int) -> None:
        import numpy as np

        self.rows = rows
        self.box = _BOX
        self.solver = new_solver()
        nothing = np.array([], dtype=np.int32), np.array([], dtype=np.float64)
        for _ in range(rows):
            self.solver.addCol(0.0, 0.0, self.box, 0, *nothing)
        self.solver.addCol(-1.0, -np.inf, np.inf, 0, *nothing)

    def cut(self, constant: float, slope: Floats) -> None:
        """Add the bound `constant + slope . multipliers` on the dual function."""
        import numpy as np

        columns = np.arange(self.rows + 1, dtype=np.int32)
        self.solver.addRow(-np.inf, constant, self.rows + 1, columns, np.append(-slope, 1.0))

    def solve(self) -> tuple[float, Floats]:
        """Return the largest value under all cuts, and the multipliers there."""
        import numpy as np

        run(self.solver)
        values = np.array(self.solver.getSolution().col_value)
        return float(values[-1]), np.maximum(values[:-1], 0.0)

    def widen(self, at: Floats) -> bool:
        """Widen the box when `at` touches it; return whether that was so and allowed."""
        import numpy as np

        if self.box >= _WIDEST_BOX or not np.any(at >= 0.999 * self.box):
            return False
        self.box *= 1e3
        for row in range(self.rows):
            self.solver.changeColBounds(row, 0.0, self.box)
        return True
