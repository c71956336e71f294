"""Timing calls against one another on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from anyblock.contract.cost import Call, Timing
from anyblock.errors import ExecutionError, UsageError
from anyblock.modeling.device import synchronize
from anyblock.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch


def measure(
    calls: Mapping[str, Call],
    *,
    device: torch.device | str = "cpu",
    warmup: int = 2,
    repeats: int = 11,
    min_sample_ms: float = 1.0,
    progress: Progress = SILENT,
) -> dict[str, Timing]:
    """Time calls against one another.

    The rounds are interleaved: each runs every call, starting at another one each time, so that a slow phase of the
    machine falls on all of them. Short calls without a reset are repeated within a sample until it lasts
    `min_sample_ms`. The result is the median over rounds. Gradients are off, and the device's queue is empty at the
    start and end of each sample.

    Args:
        calls: what to time, by name.
        device: where the calls run.
        warmup: rounds that are thrown away.
        repeats: rounds that count.
        min_sample_ms: shortest sample.
        progress: where to report.

    Raises:
        UsageError: a number is out of range.
        ExecutionError: a call failed; names it.
    """
    import torch

    if repeats < 1 or warmup < 0:
        raise UsageError(f"{repeats} repeats after {warmup} warm-up rounds", expected="at least 1 and 0")
    where = torch.device(device)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad(), progress.task("time", total=(warmup + repeats) * len(calls), unit="samples") as advance:
        counts = {name: _inner_repeats(name, call, where, min_sample_ms) for name, call in calls.items()}
        names = list(calls)
        for turn in range(warmup + repeats):
            shift = turn % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                taken = _sample(name, calls[name], counts[name], where)
                if turn >= warmup:
                    samples[name].append(taken)
                advance(1)
    return {name: _timing(values) for name, values in samples.items()}


def _inner_repeats(name: str, call: Call, device: torch.device, min_sample_ms: float) -> int:
    if call.reset is not None:
        return 1
    _sample(name, call, 1, device)
    taken = _sample(name, call, 1, device)
    return max(1, min(1000, round(min_sample_ms / taken))) if taken > 0 else 1000


def _sample(name: str, call: Call, count: int, device: torch.device) -> float:
    try:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            call.run()
        synchronize(device)
        taken = (time.perf_counter() - start) * 1000.0 / count
    except RuntimeError as error:
        raise ExecutionError(f"timing {name} failed: {error}", hint="lower the batch size or the lengths") from error
    if call.reset is not None:
        call.reset()
    return taken


def _timing(values: list[float]) -> Timing:
    if len(values) < 2:
        return Timing(values[0], 0.0, len(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(statistics.median(values), high - low, len(values))
