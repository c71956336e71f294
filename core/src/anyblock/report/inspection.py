"""What `anyblock inspect` shows on a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from anyblock.costs.registry import cost_names
from anyblock.report import format as fmt
from anyblock.report.table import attention_text, ffn_text

if TYPE_CHECKING:
    from anyblock.pipeline.inspection import Inspection


def inspection_view(found: Inspection) -> Group:
    """Return family, runs of equal blocks, and costs."""
    head = Table(show_header=False, box=None)
    head.add_row("model", str(found.path))
    head.add_row("model_type", found.model_type)
    head.add_row("adapter", found.adapter)
    scenario = found.scenario
    head.add_row("scenario", f"batch {scenario.batch_size}, length {scenario.length}, {scenario.cache_dtype} cache")
    able = [name for name, state in found.capabilities.items() if state in ("full", "partial")]
    head.add_row("capabilities", ", ".join(able))

    blocks = Table(title="Blocks", title_justify="left", header_style="bold")
    for column in ("layers", "attention", "ffn"):
        blocks.add_column(column)
    for block, run in groupby(enumerate(found.block_configs), key=lambda pair: pair[1]):
        indices = [index for index, _ in run]
        span = str(indices[0]) if len(indices) == 1 else f"{indices[0]}-{indices[-1]}"
        blocks.add_row(span, attention_text(block.attention, block.attention), ffn_text(block.ffn, block.ffn))

    costs = Table(title="Costs", title_justify="left", header_style="bold")
    costs.add_column("cost")
    costs.add_column("value", justify="right")
    for name, about in cost_names().items():
        if name in found.costs.total:
            costs.add_row(name, fmt.quantity(found.costs.total[name], about.unit))
    return Group(head, blocks, costs)
