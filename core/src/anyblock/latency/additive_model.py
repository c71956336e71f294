"""Latency of subblocks, measured on the user's own device, and an additive model of a whole child's latency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from anyblock.contract.cost import LatencyScenario, SubblockCalls
from anyblock.errors import UsageError
from anyblock.latency.timing import measure
from anyblock.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

FIXED = "fixed"
"""The key of what is outside the subblocks: embedding, final norm and head."""


@dataclass(frozen=True)
class LatencyModel:
    """Latency of a whole model as a sum over its subblocks, times a factor found by measuring a whole model.

    Attributes:
        scenario: what was timed.
        subblocks: ms of the scenario by key, one for every candidate of every subblock; `fixed` for the rest.
        factor: measured over predicted latency of a whole model; 1 until `calibrated`.
    """

    scenario: LatencyScenario
    subblocks: Mapping[str, float] = field(default_factory=dict)
    factor: float = 1.0

    def latency(self, key: str) -> float:
        """Return one subblock's share of a whole model's latency, in ms.

        Raises:
            UsageError: there is no measurement for the key.
        """
        if key not in self.subblocks:
            raise UsageError(f"no latency was measured for {key!r}", expected=", ".join(list(self.subblocks)[:6]))
        return self.factor * self.subblocks[key]

    def predict(self, keys: Iterable[str]) -> float:
        """Return the latency in ms of the model made of these subblocks and what is fixed."""
        fixed = self.latency(FIXED) if FIXED in self.subblocks else 0.0
        return fixed + sum(self.latency(key) for key in keys)

    def calibrated(self, keys: Iterable[str], measured: float) -> LatencyModel:
        """Return this model with the factor for which `predict(keys)` is `measured` ms.

        The factor stands for what a sum of parts leaves out: overhead between layers, caches that stay warm.
        """
        predicted = self.predict(keys)
        if predicted <= 0 or measured <= 0:
            raise UsageError(f"predicted {predicted} ms, measured {measured} ms", expected="both above 0")
        return replace(self, factor=self.factor * measured / predicted)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(LatencyScenario(**data["scenario"]), dict(data["subblocks"]), data["factor"])


def measure_subblocks(
    calls: Mapping[str, SubblockCalls],
    scenario: LatencyScenario,
    *,
    device: torch.device | str = "cpu",
    warmup: int = 2,
    repeats: int = 11,
    progress: Progress = SILENT,
) -> LatencyModel:
    """Time every subblock's prefill and decoding step and return the additive model of the scenario.

    A subblock's latency is `prefill + generated * decode`. Prefill and decode are timed in separate rounds, since they
    differ in length by orders of magnitude.

    Args:
        calls: by key; `fixed` for embedding, norm and head.
        scenario: what the calls were built for.
        device, warmup, repeats, progress: see `measure`.

    Raises:
        UsageError: tokens are generated in the scenario, and a subblock has no `decode`.
    """
    options: dict[str, Any] = {"device": device, "warmup": warmup, "repeats": repeats, "progress": progress}
    prefill = measure({key: call.prefill for key, call in calls.items()}, **options)
    total = {key: timing.median for key, timing in prefill.items()}
    if scenario.generated:
        missing = [key for key, call in calls.items() if call.decode is None]
        if missing:
            raise UsageError(f"no decode call for {', '.join(missing)}", expected="one for every subblock")
        decode = measure({key: call.decode for key, call in calls.items() if call.decode is not None}, **options)
        total = {key: total[key] + scenario.generated * decode[key].median for key in total}
    return LatencyModel(scenario, total)
