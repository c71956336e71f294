"""A first solution: the choice that the Lagrangian bound suggests, improved by exchanging options in one or two groups.

That choice breaks a budget by a little or wastes a little of it, and a handful of groups decide how much; two exchanges at
once let one group give what another takes. Nothing is proved here. What is found is a ceiling for the sweeps that follow, and
they are the faster the lower it is.

Source: Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", EJOR 83 (1995), for the start from the
relaxation and for looking at a core of options of small reduced cost; exchanges of two are those of local search in general
(Aarts and Lenstra, "Local search in combinatorial optimization", 1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyblock.search.proof.lagrange import lagrangian

if TYPE_CHECKING:
    from anyblock.search.instance import Floats, Instance, Ints
    from anyblock.search.proof.lagrange import LagrangianBound

_STARTS: Final = 3
_OPTIONS: Final = 400
"""Options that are tried, those of least reduced cost: a pass looks at half as many pairs as the square of this."""
_PASSES: Final = 60


@dataclass(frozen=True)
class _Moves:
    """Options that may replace the chosen one of their group, and, as the first, none at all.

    Attributes:
        option: `[moves]`, position of the option; -1 for none.
        group: `[moves]`; -1 for none.
        score: `[moves]`, what the summed score changes by.
        rows: `[rows, moves]`, what the sums of the rows change by.
    """

    option: Ints
    group: Ints
    score: Floats
    rows: Floats


def exchange(instance: Instance, bound: LagrangianBound) -> Ints | None:
    """Return a good choice that keeps all rows, as positions `[groups]`; None when none was found.

    `bound` belongs to `instance`. Equal instances give equal choices.
    """
    import numpy as np

    tried = np.sort(np.argsort(bound.reduced, kind="stable")[:_OPTIONS])
    best: Ints | None = None
    for multipliers in bound.pool[:_STARTS]:
        chosen = _improved(instance, tried, lagrangian(instance, multipliers)[2])
        if chosen is not None and (best is None or instance.score[chosen].sum() < instance.score[best].sum()):
            best = chosen
    return best


def _improved(instance: Instance, tried: Ints, chosen: Ints) -> Ints | None:
    """Exchange until all rows are kept and no exchange of one or two of the options `tried` lowers the score."""
    import numpy as np

    chosen, group = chosen.copy(), instance.group_of()
    size = np.abs(instance.rows).max(axis=1, initial=0.0)
    size[size == 0.0] = 1.0
    for _ in range(_PASSES):
        free = instance.limit + instance.slack - instance.rows[:, chosen].sum(axis=1)
        moves = _moves(instance, group, tried, chosen)
        first, second = np.triu_indices(len(moves.option), 1)
        apart = moves.group[first] != moves.group[second]
        first, second = first[apart], second[apart]
        if not len(first):
            break
        over = np.zeros(len(first))
        for change, left, unit in zip(moves.rows, free, size, strict=True):
            over += np.maximum(change[first] + change[second] - left, 0.0) / unit
        fits = np.flatnonzero(over == 0.0)
        if len(fits):
            pair = fits[np.argmin(moves.score[first[fits]] + moves.score[second[fits]])]
            if moves.score[first[pair]] + moves.score[second[pair]] >= 0.0 and instance.feasible(chosen):
                break
        else:
            pair = np.argmin(over)
            if over[pair] >= np.maximum(-free / size, 0.0).sum():
                break
        for move in (first[pair], second[pair]):
            if moves.group[move] >= 0:
                chosen[moves.group[move]] = moves.option[move]
    return chosen if instance.feasible(chosen) else None


def _moves(instance: Instance, group: Ints, tried: Ints, chosen: Ints) -> _Moves:
    import numpy as np

    option = tried[chosen[group[tried]] != tried]
    now = chosen[group[option]]
    return _Moves(
        np.append(-1, option),
        np.append(-1, group[option]),
        np.append(0.0, instance.score[option] - instance.score[now]),
        np.column_stack([np.zeros(len(instance.limit)), instance.rows[:, option] - instance.rows[:, now]]),
    )
