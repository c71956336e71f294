"""`latency` as a cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from anyblock.contract.cost import LatencyScenario, MeasuredCost, SubblockCalls
from anyblock.latency.additive_model import measure_subblocks

if TYPE_CHECKING:
    import torch

    from anyblock.progress import Progress


class Latency(MeasuredCost):
    """Time of one prefill and the decoding steps after it."""

    summary: ClassVar[str] = "Time of the scenario's prefill and decoding steps, measured on this device."
    unit: ClassVar[str] = "ms"

    def measure(
        self,
        calls: Mapping[str, SubblockCalls],
        scenario: LatencyScenario,
        *,
        device: torch.device,
        repeats: int,
        progress: Progress,
    ) -> Mapping[str, float]:
        """See `MeasuredCost.measure`."""
        return measure_subblocks(calls, scenario, device=device, repeats=repeats, progress=progress).subblocks
