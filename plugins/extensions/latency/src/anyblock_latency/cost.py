"""`latency`, timed on the run's device, and `throughput`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from anyblock.contract.cost import Call, LatencyScenario, MeasuredCost, Rate, SubblockCalls
from anyblock.contract.services import services
from anyblock.errors import UsageError

if TYPE_CHECKING:
    import torch
    from anyblock.contract.cost import Progress

_WARM_UP = 2


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
        """Return `prefill + generated * decode` in ms for each of the calls.

        Prefill and decode are timed in separate rounds, since they differ in length by orders of magnitude.

        Raises:
            UsageError: tokens are generated in the scenario, and a call has no `decode`.
        """

        def medians(work: dict[str, Call]) -> dict[str, float]:
            timings = services().time_calls(work, device=device, repeats=repeats, warmup=_WARM_UP, progress=progress)
            return {key: timing.median for key, timing in timings.items()}

        total = medians({key: call.prefill for key, call in calls.items()})
        if scenario.generated:
            decode = {key: call.decode for key, call in calls.items() if call.decode is not None}
            if missing := calls.keys() - decode.keys():
                raise UsageError(f"no decode call for {', '.join(sorted(missing))}", expected="one for every subblock")
            steps = medians(decode)
            total = {key: taken + scenario.generated * steps[key] for key, taken in total.items()}
        return total


class Throughput(Rate):
    """Generated tokens of the whole batch, over the latency."""

    summary: ClassVar[str] = "Generated tokens a second, prefill included; a budget on it is one on `latency`."
    unit: ClassVar[str] = "tokens/s"
    of: ClassVar[str] = "latency"

    def amount(self, scenario: LatencyScenario) -> float:
        """See `Rate.amount`."""
        return 1000.0 * scenario.batch_size * scenario.generated
