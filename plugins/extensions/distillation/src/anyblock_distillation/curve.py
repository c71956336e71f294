"""How a training went, for whoever draws it: few enough points that a stage's result stays small."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final

POINTS: Final = 60
"""So many points of a training are kept at most."""


@dataclass
class Curve:
    """How a training went.

    Attributes:
        steps: numbers of steps after which there is a point, from 1.
        tokens: tokens trained on until then.
        loss: mean over the steps since the point before, on the text of these steps; what `held_out` measures too.
        learning_rate: of the last of these steps.
        held_out: `[steps, error]` on text that was not trained on, before the first step and after every epoch.
        pending: losses since the last point, of a training that is not finished.
    """

    steps: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    held_out: list[list[float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)

    def step(self, number: int, total: int, tokens: int, loss: float, learning_rate: float) -> None:
        """Add a finished step.

        Args:
            number: its number, from 1.
            total: of all epochs.
            tokens: trained on, up to and with it.
            loss: before its change of the weights, on its text.
            learning_rate: of it.
        """
        self.pending.append(loss)
        if number % math.ceil(total / POINTS) == 0 or number == total:
            self.steps.append(number)
            self.tokens.append(tokens)
            self.loss.append(_short(sum(self.pending) / len(self.pending)))
            self.learning_rate.append(_short(learning_rate))
            self.pending.clear()

    def judge(self, number: int, error: float) -> None:
        """Add what was measured on held-out text after so many steps."""
        self.held_out.append([number, _short(error)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, of a finished training."""
        data = asdict(self)
        del data["pending"]
        return data


def _short(value: float) -> float:
    return float(f"{value:.6g}")
