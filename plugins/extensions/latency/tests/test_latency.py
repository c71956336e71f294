"""`latency` and `throughput`: found by name, measured on a clock that only calls move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anyblock.contract.cost import Call, LatencyScenario, SubblockCalls
from anyblock.contract.services import services
from anyblock.costs.registry import known_costs
from anyblock.errors import UsageError
from anyblock.measuring import timing
from anyblock_latency.cost import Latency, Throughput

CPU = torch.device("cpu")


class Clock:
    """A clock in seconds that stands still until a call says how many ms it took."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def call(self, ms: float) -> Call:
        def run() -> None:
            self.now += ms / 1000.0

        return Call(run)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def measured(calls: dict[str, SubblockCalls], scenario: LatencyScenario) -> Any:
    return Latency().measure(calls, scenario, device=CPU, repeats=3, progress=services().progress())


def test_core_finds_both_by_name() -> None:
    assert (known_costs()["latency"], known_costs()["throughput"]) == (Latency, Throughput)


def test_a_subblock_takes_its_prefill_and_every_decoding_step(clock: Clock) -> None:
    scenario = LatencyScenario(batch_size=1, prefill_length=8, generated=10)
    calls = {
        "fixed": SubblockCalls(clock.call(4.0), clock.call(1.0)),
        "wide": SubblockCalls(clock.call(20.0), clock.call(2.0)),
    }
    assert measured(calls, scenario) == pytest.approx({"fixed": 14.0, "wide": 40.0})
    assert measured(calls, LatencyScenario(generated=0)) == pytest.approx({"fixed": 4.0, "wide": 20.0})
    with pytest.raises(UsageError, match="no decode call for wide"):
        measured({"wide": SubblockCalls(calls["wide"].prefill)}, scenario)


def test_throughput_follows_from_latency() -> None:
    scenario = LatencyScenario(batch_size=4, prefill_length=100, generated=50)
    assert Throughput().amount(scenario) / 2_000.0 == 100.0
    assert Throughput().amount(LatencyScenario(generated=0)) == 0
