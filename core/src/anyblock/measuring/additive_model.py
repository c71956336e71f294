"""A measured cost of a whole child as the sum over its subblocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from anyblock.contract.cost import LatencyScenario
from anyblock.errors import UsageError

FIXED = "fixed"
"""The key of what is outside the subblocks: embedding, final norm and head."""


@dataclass(frozen=True)
class AdditiveModel:
    """A measured cost as a sum over subblocks, times a factor found by measuring a whole model.

    Attributes:
        scenario: what was measured.
        subblocks: the cost by key, one for every candidate of every subblock; `fixed` for the rest.
        factor: measured over predicted cost of a whole model; 1 until `calibrated`.
    """

    scenario: LatencyScenario
    subblocks: Mapping[str, float] = field(default_factory=dict)
    factor: float = 1.0

    def cost(self, key: str) -> float:
        """Return one subblock's share of a whole model's cost.

        Raises:
            UsageError: there is no measurement for the key.
        """
        if key not in self.subblocks:
            raise UsageError(f"nothing was measured for {key!r}", expected=", ".join(list(self.subblocks)[:6]))
        return self.factor * self.subblocks[key]

    def predict(self, keys: Iterable[str]) -> float:
        """Return the cost of the model made of these subblocks and what is fixed."""
        fixed = self.cost(FIXED) if FIXED in self.subblocks else 0.0
        return fixed + sum(self.cost(key) for key in keys)

    def calibrated(self, keys: Iterable[str], measured: float) -> AdditiveModel:
        """Return this model with the factor for which `predict(keys)` is `measured`.

        The factor stands for what a sum of parts leaves out: overhead between layers, caches that stay warm.
        """
        predicted = self.predict(keys)
        if predicted <= 0 or measured <= 0:
            raise UsageError(f"predicted {predicted}, measured {measured}", expected="both above 0")
        return replace(self, factor=self.factor * measured / predicted)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(LatencyScenario(**data["scenario"]), dict(data["subblocks"]), data["factor"])
