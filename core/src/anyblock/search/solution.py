"""What a search returns."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

PROOF_GAP: Final = 1e-6
"""A solution at most this far from its bound, relatively, counts as proven optimal."""

Status = Literal["proven", "gap", "limit"]
"""`proven`: nothing is better by more than `PROOF_GAP`. `gap`: within the gap that was asked for. `limit`: stopped farther
from the bound than was asked, as a rule because time or nodes ran out."""


@dataclass(frozen=True)
class Solution:
    """One choice for every group, with what is known about how good it is.

    Attributes:
        choices: `{group key: option key}`.
        score: summed score of the choices.
        bound: no choice within the budgets scores less than this.
        gap: `(score - bound) / max(|score|, |bound|)`; zero when the two are equal.
        status: see `Status`; a limit that was hit is never reported as a proof.
        costs: every cost that all chosen options state, with the fixed costs.
        seconds: wall time of this solution's search.
        nodes: branch-and-bound nodes that HiGHS opened; zero when it was not needed.
        prices: what one more unit of a budget would save in score, by cost name, from the relaxation's multipliers.
    """

    choices: dict[str, str]
    score: float
    bound: float
    gap: float
    status: Status
    costs: dict[str, float]
    seconds: float
    nodes: int = 0
    prices: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the solution as JSON-serialisable types."""
        return asdict(self)

    def distance(self, other: Solution) -> int:
        """Return in how many groups the two choose differently (Hamming distance)."""
        return sum(other.choices.get(group) != option for group, option in self.choices.items())


def relative_gap(score: float, bound: float) -> float:
    """Return `(score - bound) / max(|score|, |bound|)`: zero when they meet, infinite without a score or a bound."""
    difference = max(score - bound, 0.0)
    if difference == 0.0:
        return 0.0
    return difference / max(abs(score), abs(bound)) if math.isfinite(difference) else math.inf
