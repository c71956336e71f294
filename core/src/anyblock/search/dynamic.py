"""Dynamic programming over partial choices, pruned by the Lagrangian bound.

Groups are decided one after another. A state is a partial choice: its score so far and its sum in every row. A state is dropped
when no completion can be better than the best known choice, or when another state is no worse in everything; what is left after the
last group is optimal. Exact as long as the states fit in `width`; beyond that the most promising ones are kept (beam search), and
the least bound among the dropped ones is still a bound on what was lost.

Source: Dudzinski and Walukiewicz, "Exact methods for the knapsack problem and its generalizations", EJOR 28 (1987), for the
bound-pruned list algorithm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyblock.search.instance import Floats, Instance, Ints
    from anyblock.search.lagrange import Bound


@dataclass(frozen=True)
class DynamicResult:
    """What the sweep over all groups found.

    Attributes:
        chosen: position of the chosen option of each group, `[groups]`; None when nothing beats `ceiling`.
        score: its summed score; infinite without one.
        bound: no feasible choice scores less than the smaller of this and `ceiling`.
        states: the largest number of states after any group.
    """

    chosen: Ints | None
    score: float
    bound: float
    states: int


def sweep_groups(instance: Instance, bound: Bound, *, ceiling: float, width: int, deadline: float) -> DynamicResult:
    """Look for the feasible choice of least score that is below `ceiling`, keeping at most `width` partial choices."""
    import numpy as np

    groups, rows = instance.groups, len(instance.limit)
    # The spread of reduced costs decides first: it prunes most, so later lists stay short.
    order = _order(instance, bound)
    room = instance.limit + instance.slack
    lows = np.minimum.reduceat(instance.rows, instance.start[:-1], axis=1) if rows else np.zeros((0, groups))
    ahead = np.concatenate([np.cumsum(lows[:, order][:, ::-1], axis=1)[:, ::-1], np.zeros((rows, 1))], axis=1)
    poolm = bound.pool[:8]
    # rest[p, k]: completion's least Lagrangian cost for groups k.. under multipliers p
    costs = instance.score + poolm @ instance.rows
    least = np.minimum.reduceat(costs, instance.start[:-1], axis=1)[:, order]
    rest = np.concatenate([np.cumsum(least[:, ::-1], axis=1)[:, ::-1], np.zeros((len(poolm), 1))], axis=1)
    const = poolm @ room
    score = np.zeros(1)
    used = np.zeros((rows, 1))
    lost = np.inf
    most = 1
    trail = []
    for step, group in enumerate(order):
        if time.perf_counter() > deadline:
            return DynamicResult(None, np.inf, -np.inf, most)
        low, high = instance.start[group], instance.start[group + 1]
        options = np.arange(low, high)
        count = len(score)
        new_score = (score[:, None] + instance.score[None, low:high]).ravel()
        new_used = (used[:, :, None] + instance.rows[:, None, low:high]).reshape(rows, count * len(options))
        fits = np.all(new_used + ahead[:, step + 1, None] <= room[:, None], axis=0)
        value = np.full(len(new_score), -np.inf)
        sel = np.flatnonzero(fits)
        for p in range(len(poolm)):
            v = new_score[sel] + poolm[p] @ new_used[:, sel] + (rest[p, step + 1] - const[p])
            value[sel] = np.maximum(value[sel], v)
            sel = sel[value[sel] < ceiling]
        value_s, new_score, new_used = value[sel], new_score[sel], new_used[:, sel]
        kept = _undominated(new_score, new_used)
        sel, value_s, new_score, new_used = sel[kept], value_s[kept], new_score[kept], new_used[:, kept]
        if len(sel) > width:
            rank = np.argsort(value_s, kind="stable")
            lost = min(lost, float(value_s[rank[width]]))
            kept = np.sort(rank[:width])
            sel, new_score, new_used = sel[kept], new_score[kept], new_used[:, kept]
        most = max(most, len(sel))
        trail.append((sel // len(options), low + sel % len(options)))
        score, used = new_score, new_used
        if not len(sel):
            return DynamicResult(None, np.inf, lost, most)
    state = int(np.argmin(score))
    final = float(score[state])
    chosen = np.empty(groups, dtype=np.intp)
    for step in range(groups - 1, -1, -1):
        parents, picks = trail[step]
        chosen[order[step]] = picks[state]
        state = int(parents[state])
    return DynamicResult(chosen, final, min(lost, final), most)


def _order(instance, bound):
    import numpy as np

    spread = np.add.reduceat(bound.reduced, instance.start[:-1]) / np.diff(instance.start)
    return np.argsort(-spread, kind="stable")


def _undominated(score: Floats, used: Floats) -> Ints:
    import numpy as np

    if len(used) == 0:
        return np.array([int(np.argmin(score))]) if len(score) else np.zeros(0, dtype=np.intp)
    order = np.lexsort((score, *used[::-1]))
    s = score[order]
    if len(used) == 1:
        best = np.minimum.accumulate(np.concatenate([[np.inf], s[:-1]]))
        return np.sort(order[s < best])
    u = used[:, order]
    # same sums: keep the best
    same = np.all(u[:, 1:] == u[:, :-1], axis=0)
    return np.sort(order[np.concatenate([[True], ~same])]) if len(s) else order
