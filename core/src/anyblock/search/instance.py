"""A problem as arrays, in an order that does not depend on how it was written down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from anyblock.search.budgets import ROUNDING
from anyblock.search.problem import Group, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]

_EXACT: Final = 2.0**53
"""Whole numbers up to here are exact as floats."""


@dataclass(frozen=True)
class Instance:
    """Options of all groups one after another; budgets as rows `sum a[k, chosen] <= limit[k]`.

    Groups and options are sorted by key, so equal problems give equal instances whatever order they were written in. A
    lower bound is a row with negated costs; a diversity cut is a row of zeros and ones.

    Attributes:
        start: `[groups + 1]`, options of group `g` are `start[g]:start[g + 1]`.
        score: `[options]`.
        rows: `[rows, options]`.
        limit: `[rows]`, fixed costs already subtracted.
        slack: `[rows]`, what rounding may add to a row's sum without breaking it.
        names: `[rows]`, the cost (prefixed with `-` for a lower bound) or the cut of a row.
        index: `[options]`, each option's position in the unfiltered instance.
    """

    start: Ints
    score: Floats
    rows: Floats
    limit: Floats
    slack: Floats
    names: tuple[str, ...]
    index: Ints

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.start) - 1

    def group_of(self) -> Ints:
        """Return the group of every option, `[options]`."""
        import numpy as np

        return np.repeat(np.arange(self.groups), np.diff(self.start))

    def keep(self, mask: NDArray[np.bool_]) -> Instance:
        """Return the instance with only the options of `mask` (`[options]`, at least one a group)."""
        import numpy as np

        counts = np.add.reduceat(mask, self.start[:-1])
        start = np.concatenate([[0], np.cumsum(counts)])
        return Instance(
            start, self.score[mask], self.rows[:, mask], self.limit, self.slack, self.names, self.index[mask]
        )

    def with_row(self, row: Floats, limit: float, name: str) -> Instance:
        """Return the instance with one more row, `[options]`."""
        import numpy as np

        return replace(
            self,
            rows=np.vstack([self.rows, row]),
            limit=np.append(self.limit, limit),
            slack=np.append(self.slack, 0.0),
            names=(*self.names, name),
        )

    def feasible(self, chosen: Ints) -> bool:
        """Return whether one option a group, given by position `[groups]`, keeps every row."""
        import numpy as np

        return bool(np.all(self.rows[:, chosen].sum(axis=1) <= self.limit + self.slack))


@dataclass(frozen=True)
class Compiled:
    """An instance together with the keys of its groups and options.

    Attributes:
        instance: the arrays.
        groups: the problem's groups, sorted by key.
        keys: the key of every option, `[options]`.
    """

    instance: Instance
    groups: tuple[Group, ...]
    keys: tuple[str, ...]

    def choices(self, index: Ints) -> dict[str, str]:
        """Return `{group key: option key}` of positions in the unfiltered instance, `[groups]`."""
        return {group.key: self.keys[int(i)] for group, i in zip(self.groups, index, strict=True)}


def compile_problem(problem: Problem) -> Compiled:
    """Turn a problem into arrays, sorted by key."""
    import numpy as np

    groups = tuple(sorted(problem.groups, key=lambda group: group.key))
    options = [option for group in groups for option in sorted(group.options, key=lambda option: option.key)]
    start = np.cumsum([0, *(len(group.options) for group in groups)])
    rows, limits, slacks, names = [], [], [], []
    for budget in problem.budgets:
        cost = np.array([option.costs[budget.cost] for option in options], dtype=np.float64)
        fixed = problem.fixed_costs.get(budget.cost, 0.0)
        for bound, sign in ((budget.upper, 1.0), (budget.lower, -1.0)):
            if bound is not None:
                rows.append(sign * cost)
                limits.append(sign * (bound - fixed))
                # Half of what `Budget.keeps` allows, so that a sum in another order cannot turn out to break it.
                slacks.append(0.5 * ROUNDING * abs(bound))
                names.append(budget.cost if sign > 0 else f"-{budget.cost}")
    instance = Instance(
        start=start,
        score=np.array([option.score for option in options], dtype=np.float64),
        rows=np.array(rows, dtype=np.float64).reshape(len(rows), len(options)),
        limit=np.array(limits, dtype=np.float64),
        slack=np.array(slacks, dtype=np.float64),
        names=tuple(names),
        index=np.arange(len(options)),
    )
    return Compiled(instance, groups, tuple(option.key for option in options))


def tighten(instance: Instance) -> Instance:
    """Lower each limit to the largest sum that its row can have at all.

    Where an option's cost exceeds the least of its group, it does so by a multiple of some step: parameters of one FFN
    channel, bytes of one head. Only whole costs are looked at; a limit between two sums would weaken every bound.
    """
    import numpy as np

    least = np.minimum.reduceat(instance.rows, instance.start[:-1], axis=1)
    limit, slack = instance.limit.copy(), instance.slack.copy()
    for row, costs in enumerate(instance.rows):
        total = float(least[row].sum())
        over = costs - np.repeat(least[row], np.diff(instance.start))
        if np.any(costs != np.rint(costs)) or np.abs(costs).sum() > _EXACT:
            continue
        step = float(np.gcd.reduce(over.astype(np.int64)))
        if step:
            limit[row] = total + step * np.floor((limit[row] + slack[row] - total) / step)
            slack[row] = 0.0
    return replace(instance, limit=limit, slack=slack)
