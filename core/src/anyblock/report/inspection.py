"""What `anyblock inspect` shows on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from anyblock.contract.blocks import BlockConfig
from anyblock.costs.cost_model import Costs, Scenario
from anyblock.costs.registry import known_costs
from anyblock.report import format as fmt
from anyblock.report.table import attention_text, ffn_text


@dataclass(frozen=True)
class Inspection:
    """What is known about a model before anything is loaded.

    Attributes:
        path: the checkpoint.
        model_type: from `config.json`.
        adapter: the distribution that serves it, with its version.
        block_configs: one a layer.
        costs: parameters and memory in `scenario`.
        scenario: what memory is counted for.
        capabilities: `{capability: state}` as the adapter declares them.
        formats: see `anyblock.report.summary.RunSummary`; None where that was not asked.
        notes: what a user should know about the model, a sentence each.
    """

    path: Path
    model_type: str
    adapter: str
    block_configs: list[BlockConfig]
    costs: Costs
    scenario: Scenario
    capabilities: dict[str, str]
    notes: Sequence[str] = ()
    formats: dict[str, dict[str, list[str]]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "path": str(self.path),
            "model_type": self.model_type,
            "adapter": self.adapter,
            "layers": len(self.block_configs),
            "block_configs": [block.to_dict() for block in self.block_configs],
            "costs": self.costs.total,
            "batch": self.scenario.batch_size,
            "length": self.scenario.length,
            "cache_dtype": self.scenario.cache_dtype,
            "capabilities": self.capabilities,
            "formats": self.formats,
            "notes": list(self.notes),
        }


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
    for name, fit in (found.formats or {}).items():
        head.add_row(
            f"format {name}", "; ".join([f"no: {why}" for why in fit["obstacles"]] or ["yes", *fit["remarks"]])
        )

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
    for name, about in known_costs().items():
        if name in found.costs.total:
            costs.add_row(name, fmt.quantity(found.costs.total[name], about.unit))
    return Group(head, blocks, costs)
