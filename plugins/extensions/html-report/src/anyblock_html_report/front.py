"""What the scores of a run promise at every size: the front of predicted children, and uniform ones to compare with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

from anyblock_html_report.run import Run, label_of

_MOST_UNIFORM = 4096
"""So many pairs of uniform halves are compared at most."""


class Point(NamedTuple):
    """A child: what it costs, and the sum of the damage of its halves."""

    cost: float
    score: float
    label: str = ""


@dataclass(frozen=True)
class Options:
    """The candidates of one half of one layer that can be chosen, with their costs by name and their scores.

    Embeddings and head are a half of their own, if their storage types are searched.
    """

    group: str
    half: str
    labels: list[str]
    costs: list[dict[str, float]]
    scores: list[float]

    def points(self, cost: str) -> list[Point]:
        """Return the options with one of their costs."""
        return [Point(c.get(cost, 0.0), s, n) for c, s, n in zip(self.costs, self.scores, self.labels, strict=True)]


def options(run: Run) -> list[Options]:
    """Return what each half of each layer could become; empty before the scores are finished."""
    if run.candidates is None or run.scores is None:
        return []
    found: dict[str, Options] = {}
    for row in run.candidates["candidates"]:
        candidate, label = row["candidate"], label_of(row["candidate"])
        group = f"block_{candidate['layer']}_{candidate['half']}"
        score = 0.0 if label == "teacher" else run.scores.get(f"{group}:{label}", math.inf)
        if math.isfinite(score):
            mine = found.setdefault(group, Options(group, candidate["half"], [], [], []))
            mine.labels.append(label)
            mine.costs.append(row["costs"])
            mine.scores.append(score)
    for group, sizes in run.candidates.get("outside", {}).items():
        scores = [run.scores.get(f"{group}@{name}", math.inf if len(sizes) > 1 else 0.0) for name in sizes]
        costs = [{"bytes": float(size)} for size in sizes.values()]
        found[group] = Options(group, group, [f"teacher@{name}" for name in sizes], costs, scores)
    return list(found.values())


def predicted_front(groups: Sequence[Options], cost: str, fixed: float) -> list[Point]:
    """Return children that no choice of candidates beats at their own cost, from the dearest to the cheapest.

    They are those that minimise score + price * cost for some price, which every half can do for itself: the steps along
    the lower convex hull of each half, taken in the order of what they do to the score for what they save (Everett 1963).
    Between two of them there may be others, which a search finds.
    """
    start = fixed
    score = 0.0
    steps: list[tuple[float, float, float]] = []
    for group in groups:
        hull = _hull(group.points(cost))
        start += hull[0].cost
        score += hull[0].score
        for before, after in pairwise(hull):
            saved, damage = before.cost - after.cost, after.score - before.score
            steps.append((damage / saved, saved, damage))
    front = [Point(start, score)]
    for _, saved, damage in sorted(steps):
        front.append(Point(front[-1].cost - saved, front[-1].score + damage))
    return front


def _hull(points: Iterable[Point]) -> list[Point]:
    """Return the lower convex hull, from the least score to the least cost."""
    hull: list[Point] = []
    for point in sorted(set(points), key=lambda p: (p.cost, p.score)):
        if hull and point.score >= hull[-1].score:
            continue  # dearer and not better
        while len(hull) > 1 and _turns(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull[::-1]


def _turns(first: Point, middle: Point, last: Point) -> bool:
    """Return whether the middle one lies on or above the line between the others."""
    return (middle.score - first.score) * (last.cost - first.cost) >= (last.score - first.score) * (
        middle.cost - first.cost
    )


def quantized(groups: Sequence[Options], cost: str, fixed: float) -> list[Point]:
    """Return the teacher in each storage type that the run searched, the largest first; empty where it searched none.

    A half whose rows are too short for a type has the next larger one that it can have.
    """
    tables = [
        {p.label.removeprefix("teacher@"): p for p in group.points(cost) if p.label.startswith("teacher@")}
        for group in groups
    ]
    names = max(tables, key=len, default={})
    found: list[Point] = []
    for place, name in enumerate(names):
        larger = list(names)[place::-1]
        parts = [next((table[other] for other in larger if other in table), None) for table in tables]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            found.append(Point(fixed + sum(p.cost for p in known), sum(p.score for p in known), name))
    return found


def uniform_front(groups: Sequence[Options], cost: str, fixed: float) -> list[Point]:
    """Return the best children in which every layer has the same candidate, from the dearest to the cheapest."""
    halves: list[list[Point]] = []
    for half in dict.fromkeys(group.half for group in groups):
        mine = [{p.label: p for p in group.points(cost)} for group in groups if group.half == half]
        shared = [label for label in mine[0] if all(label in table for table in mine)]
        halves.append(
            [
                Point(sum(t[label].cost for t in mine), sum(t[label].score for t in mine), f"{half} {label}")
                for label in shared
            ]
        )
    if not halves or math.prod(map(len, halves)) > _MOST_UNIFORM:
        return []
    sums = (
        Point(fixed + sum(p.cost for p in parts), sum(p.score for p in parts), ", ".join(p.label for p in parts))
        for parts in product(*halves)
    )
    best: list[Point] = []
    for point in sorted(sums, key=lambda p: (p.cost, p.score)):
        if not best or point.score < best[-1].score:
            best.append(point)
    return best[::-1]
