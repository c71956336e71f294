"""`inspect`: what a model is made of, from its config and headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyblock.blocks import BlockConfig
from anyblock.costs.model import Costs, Scenario, model_costs
from anyblock.pipeline.source import read_source


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
        notes: what a user should hear of the model, a sentence each.
    """

    path: Path
    model_type: str
    adapter: str
    block_configs: list[BlockConfig]
    costs: Costs
    scenario: Scenario
    capabilities: dict[str, str]
    notes: Sequence[str] = ()

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
            "notes": list(self.notes),
        }


def inspect_model(path: Path, scenario: Scenario) -> Inspection:
    """Read config and headers of a Hugging Face directory, a subblock checkpoint or a child.

    Raises:
        CheckpointError: the files are damaged, or do not hold exactly the tensors of the model.
        UnsupportedModelError: no installed adapter serves the model.
    """
    source = read_source(path)
    family = source.family
    return Inspection(
        path=path,
        model_type=source.model_type,
        adapter=f"{family.distribution} {family.version}",
        block_configs=source.block_configs,
        costs=model_costs(family, source.config, source.block_configs, source.shapes, scenario),
        scenario=scenario,
        capabilities={name: str(capability.support) for name, capability in family.capabilities().items()},
        notes=source.notes,
    )
