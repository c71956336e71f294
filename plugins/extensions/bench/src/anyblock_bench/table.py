"""Speeds of several models next to one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from humanize import metric, naturalsize
from rich.table import Table

if TYPE_CHECKING:
    from anyblock.contract.cost import Timing

    from anyblock_bench.bench import BenchResult, ModelSpeed


def speed_table(result: BenchResult) -> Table:
    """Return a table with a column for each model; with two, a last one compares the second with the first."""
    scenario = result.scenario
    table = Table(
        title=f"batch {scenario.batch_size}, {scenario.prefill_length} prompt tokens, {scenario.generated} new ones, "
        f"{result.dtype} on {result.device}, median of {result.repeats} (± half the interquartile range)",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("")
    for name in result.models:
        table.add_column(name, justify="right")
    speeds = list(result.models.values())
    if len(speeds) == 2:
        table.add_column("ratio", justify="right")
    for label, (value, show) in _ROWS.items():
        cells = [show(speed) for speed in speeds]
        if len(speeds) == 2:
            before, after = value(speeds[0]), value(speeds[1])
            cells.append("–" if not before or after is None else f"{after / before:.2f}x")
        table.add_row(label, *cells)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _time(timing: Timing | None) -> str:
    return "–" if timing is None else f"{_number(timing.median)} ± {timing.spread / 2:.2g} ms"


_Row = tuple["Callable[[ModelSpeed], float | None]", "Callable[[ModelSpeed], str]"]
_ROWS: dict[str, _Row] = {
    "first token": (lambda s: s.first_token.median, lambda s: _time(s.first_token)),
    "decoding step": (lambda s: None if s.decode is None else s.decode.median, lambda s: _time(s.decode)),
    "prefill tokens/s": (
        lambda s: s.prefill_tokens_per_second,
        lambda s: _number(s.prefill_tokens_per_second),
    ),
    "decode tokens/s": (lambda s: s.decode_tokens_per_second, lambda s: _number(s.decode_tokens_per_second)),
    "prefill operations": (lambda s: s.prefill_flops, lambda s: metric(s.prefill_flops)),
    "parameters": (lambda s: s.parameters, lambda s: metric(s.parameters)),
    "weights": (lambda s: s.weight_bytes, lambda s: naturalsize(s.weight_bytes, binary=True)),
    "key-value cache": (lambda s: s.cache_bytes, lambda s: naturalsize(s.cache_bytes, binary=True)),
}
