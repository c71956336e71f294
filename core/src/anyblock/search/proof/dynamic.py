"""Dynamic programming over partial choices, pruned by the Lagrangian bound.

Groups are decided one after another. A state is a partial choice: its score and its sum in every row so far. A state is
dropped when no completion of it scores below the ceiling, when none keeps the rows, or when another state is no worse in
everything; the best state after the last group is optimal. This is exact as long as the states fit in `width`. Beyond
that only the most promising are kept (beam search), and the least bound among the others bounds what was lost.

Source: Dudzinski and Walukiewicz, "Exact methods for the knapsack problem and its generalizations", EJOR 28 (1987), section
on multiple-choice knapsacks, for lists of undominated states; the bound on what a beam loses follows from its pruning rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from anyblock.search.instance import Floats, Instance, Ints
    from anyblock.search.proof.lagrange import LagrangianBound

_NEIGHBOURS: Final = 16
"""How many neighbours a state is compared with."""

_SURPLUS: Final = 4
"""So many times the width is searched for dominated states."""

_ROUNDING: Final = 1e-13


@dataclass(frozen=True)
class DynamicResult:
    """What the sweep over all groups found.

    Attributes:
        chosen: position of the chosen option of each group, `[groups]`; None when nothing below the ceiling was found.
        score: its summed score; infinite without one.
        bound: no feasible choice scores less than the smaller of this and the ceiling.
        states: the largest number of states after any group.
    """

    chosen: Ints | None
    score: float
    bound: float
    states: int


@dataclass(frozen=True)
class _Tails:
    """What the groups from each step on can still add; `[..., groups + 1]`, the last column is zero.

    Attributes:
        least: `[rows, groups + 1]`, least possible sum.
        harmless: `[rows, groups + 1]`, a sum up to this fits whatever follows, so all such sums are one and the same.
        relaxed: `[multipliers, groups + 1]`, least possible Lagrangian cost.
    """

    least: Floats
    harmless: Floats
    relaxed: Floats


@dataclass(frozen=True)
class _States:
    """Partial choices, one a column.

    Attributes:
        score: `[states]`.
        used: `[rows, states]`; a sum too small to matter for any completion is raised to where it starts to.
        value: `[states]`, no completion scores less.
        over: `[states]`, the bound plus the reduced costs chosen so far.
        parents: `[states]`, the state each one extends.
        picks: `[states]`, position of the option each one adds.
    """

    score: Floats
    used: Floats
    value: Floats
    over: Floats
    parents: Ints
    picks: Ints

    def take(self, kept: Ints) -> _States:
        """Return the states at these places."""
        return _States(
            self.score[kept],
            self.used[:, kept],
            self.value[kept],
            self.over[kept],
            self.parents[kept],
            self.picks[kept],
        )


def sweep_groups(
    instance: Instance, bound: LagrangianBound, *, ceiling: float, width: int, expired: Callable[[], bool]
) -> DynamicResult:
    """Look for the feasible choice of least score below `ceiling`, keeping at most `width` partial choices.

    `bound` belongs to `instance`. When `expired()` becomes true, the sweep stops with what is proved until then.
    """
    import numpy as np

    order = _order(instance, bound)
    tails = _tails(instance, bound, order)
    shifts = bound.pool @ (instance.limit + instance.slack)
    axis = _finest_row(instance)
    states = _States(
        np.zeros(1),
        np.zeros((len(instance.limit), 1)),
        np.array([bound.value]),
        np.array([bound.value]),
        np.zeros(1, dtype=np.intp),
        np.zeros(1, dtype=np.intp),
    )
    lost, most = np.inf, 1
    trail: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    for step, group in enumerate(order):
        if expired():
            return DynamicResult(None, np.inf, min(lost, float(states.value.min())), most)
        states = _extend(instance, bound, states, group, ceiling)
        states = _prune(instance, bound, states, tails, step + 1, shifts, ceiling)
        if len(states.score) == 0:
            return DynamicResult(None, np.inf, lost, most)
        states, lost = _most_promising(states, _SURPLUS * width, lost)
        states = states.take(_undominated(states.score, states.used, axis))
        states, lost = _most_promising(states, width, lost)
        most = max(most, len(states.score))
        trail.append((states.parents.astype(np.int32), states.picks.astype(np.int32)))
    best = int(np.argmin(states.score))
    score = float(states.score[best])
    return DynamicResult(_walk_back(trail, order, best), score, min(lost, score), most)


def _order(instance: Instance, bound: LagrangianBound) -> Ints:
    """Decide first where the second-best option costs most: few states survive there, so the lists stay short."""
    import numpy as np

    ranked = np.lexsort((bound.reduced, instance.group_of()))
    second = np.minimum(instance.start[:-1] + 1, instance.start[1:] - 1)
    return np.argsort(-bound.reduced[ranked[second]], kind="stable")


def _tails(instance: Instance, bound: LagrangianBound, order: Ints) -> _Tails:
    import numpy as np

    def from_here(per_group: Floats) -> Floats:
        sums = np.cumsum(per_group[:, order][:, ::-1], axis=1)[:, ::-1]
        return np.concatenate([sums, np.zeros((len(per_group), 1))], axis=1)

    heads = instance.start[:-1]
    most = from_here(np.maximum.reduceat(instance.rows, heads, axis=1))
    room = (instance.limit + instance.slack)[:, None]
    return _Tails(
        from_here(np.minimum.reduceat(instance.rows, heads, axis=1)),
        room - most - _ROUNDING * (np.abs(room) + np.abs(most).max(axis=1, keepdims=True)),
        from_here(np.minimum.reduceat(instance.score + bound.pool @ instance.rows, heads, axis=1)),
    )


def _finest_row(instance: Instance) -> int:
    """Return the row with the most distinct costs: sums in the others coincide more often."""
    import numpy as np

    distinct = [len(np.unique(row)) for row in instance.rows]
    return int(np.argmax(distinct)) if distinct else 0


def _extend(instance: Instance, bound: LagrangianBound, states: _States, group: int, ceiling: float) -> _States:
    import numpy as np

    low, high = instance.start[group], instance.start[group + 1]
    over = np.add.outer(states.over, bound.reduced[low:high])
    parents, picks = np.nonzero(over < ceiling)
    picked = picks + low
    return _States(
        states.score[parents] + instance.score[picked],
        states.used[:, parents] + instance.rows[:, picked],
        over[parents, picks],
        over[parents, picks],
        parents,
        picked,
    )


def _prune(
    instance: Instance,
    bound: LagrangianBound,
    states: _States,
    tails: _Tails,
    step: int,
    shifts: Floats,
    ceiling: float,
) -> _States:
    import numpy as np

    room = (instance.limit + instance.slack)[:, None]
    states = states.take(np.flatnonzero(np.all(states.used + tails.least[:, step, None] <= room, axis=0)))
    np.maximum(states.used, tails.harmless[:, step, None], out=states.used)
    for number, multipliers in enumerate(bound.pool):
        value = states.score + multipliers @ states.used + (tails.relaxed[number, step] - shifts[number])
        np.maximum(states.value, value, out=states.value)
        kept = np.flatnonzero(states.value < ceiling)
        if len(kept) < len(states.value):
            states = states.take(kept)
    return states


def _undominated(score: Floats, used: Floats, axis: int) -> Ints:
    """Return which states to keep, ascending: dominated ones go, though not every one of them is found.

    States that agree in all rows but `axis` are compared exactly, by a running minimum along that row; the rest only with
    their neighbours in order of score, since comparing all pairs would take longer than carrying some of them on.
    """
    import numpy as np

    if len(used) == 0:
        return np.array([int(np.argmin(score))])
    others = np.delete(used, axis, axis=0)
    order = np.lexsort((score, used[axis], *others))
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = np.any(others[:, order[1:]] != others[:, order[:-1]], axis=0)
    rank = np.searchsorted(np.sort(score), score[order])
    # Ranks fall from cell to cell, so that one running minimum serves all cells and no precision is lost.
    rank -= np.cumsum(fresh) * (len(order) + 1)
    kept = np.ones(len(order), dtype=np.bool_)
    kept[1:] = rank[1:] < np.minimum.accumulate(rank)[:-1]
    order = order[kept]
    if len(used) == 1:
        return np.sort(order)
    order = order[np.lexsort((*used[:, order], score[order]))]
    numbers = np.vstack([score[order], used[:, order]])
    dead = np.zeros(len(order), dtype=np.bool_)
    for shift in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
        dead[shift:] |= np.all(numbers[:, :-shift] <= numbers[:, shift:], axis=0)
    return np.sort(order[~dead])


def _most_promising(states: _States, width: int, lost: float) -> tuple[_States, float]:
    """Return the `width` states of least value, and the least value among the others and `lost`."""
    import numpy as np

    if len(states.value) <= width:
        return states, lost
    ranked = np.argsort(states.value, kind="stable")
    return states.take(np.sort(ranked[:width])), min(lost, float(states.value[ranked[width]]))


def _walk_back(trail: list[tuple[NDArray[np.int32], NDArray[np.int32]]], order: Ints, state: int) -> Ints:
    import numpy as np

    chosen = np.empty(len(order), dtype=np.intp)
    for step in range(len(order) - 1, -1, -1):
        parents, picks = trail[step]
        chosen[order[step]] = picks[state]
        state = int(parents[state])
    return chosen
