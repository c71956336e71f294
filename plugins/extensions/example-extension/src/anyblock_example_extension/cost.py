"""Two costs that budgets can bound: one is counted from shapes, the other measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from anyblock.contract.cost import CostedSubblock, CountedCost, LatencyScenario, MeasuredCost, SubblockCalls
from anyblock.contract.settings import Section
from pydantic import Field

if TYPE_CHECKING:
    import torch
    from anyblock.contract.cost import Progress


class MatrixSettings(Section):
    """Settings of the cost `matrices`."""

    smallest: int = Field(default=1, ge=1, description="Matrices with fewer elements are not counted.")


class Matrices(CountedCost):
    """How many weight matrices a token is multiplied by: each is a kernel launch, whatever its size."""

    summary: ClassVar[str] = "Weight matrices in all layers; each is a kernel launch."
    unit: ClassVar[str] = "matrices"
    settings: ClassVar[type[Section]] = MatrixSettings

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        sizes = [tensor.numel() for tensor in part.tensors.values() if tensor.dim() == 2]
        return len([size for size in sizes if size >= self.settings_given.smallest])


class ProcessorTime(MeasuredCost):
    """Processor time of one prefill, over all threads: what a shared server pays, whatever the wall clock says."""

    summary: ClassVar[str] = "Processor time of the scenario's prefill, over all threads, measured on this device."
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
        found = {}
        with progress.task("Measuring processor time", total=len(calls), unit="subblocks") as advance:
            for key, work in calls.items():
                samples = []
                for _ in range(repeats):
                    begin = time.process_time()
                    work.prefill.run()
                    samples.append(1e3 * (time.process_time() - begin))
                found[key] = statistics.median(samples)
                advance(1)
        return found
