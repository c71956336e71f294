"""`inspect`: what a model is made of, from its config and headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.blocks import BlockConfig
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.plan import plan_conversion
from anyblock.checkpoint.source import SourceCheckpoint
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.checkpoint.view import config_view
from anyblock.costs.model import Costs, Scenario, model_costs
from anyblock.family import ModelFamily, get_family

if TYPE_CHECKING:
    import torch


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
    """

    path: Path
    model_type: str
    adapter: str
    block_configs: list[BlockConfig]
    costs: Costs
    scenario: Scenario
    capabilities: dict[str, str]

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
        }


def inspect_model(path: Path, scenario: Scenario) -> Inspection:
    """Read config and headers of a Hugging Face directory, a subblock checkpoint or a child.

    Raises:
        CheckpointError: the files are damaged or hold tensors that the adapter does not know.
        UnsupportedModelError: no installed adapter serves the model.
    """
    config = read_config(path)
    family = get_family(config["model_type"])
    view = config_view(path)
    if is_subblock_checkpoint(path):
        checkpoint = SubblockCheckpoint.open(path)
        blocks = checkpoint.block_configs
        shapes = {group: checkpoint.meta(group) for group in checkpoint.groups}
    else:
        blocks, shapes = _source_shapes(family, path, config, view)
    return Inspection(
        path=path,
        model_type=config["model_type"],
        adapter=f"{family.distribution} {family.version}",
        block_configs=blocks,
        costs=model_costs(family, view, blocks, shapes, scenario),
        scenario=scenario,
        capabilities={name: str(capability.support) for name, capability in family.capabilities().items()},
    )


def _source_shapes(
    family: ModelFamily, path: Path, config: dict[str, Any], view: Any
) -> tuple[list[BlockConfig], dict[str, dict[str, torch.Tensor]]]:
    import torch

    from anyblock.checkpoint.dtypes import torch_dtype

    plan = plan_conversion(family, SourceCheckpoint.open(path), config, view)
    shapes = {
        group: {
            name: torch.empty(stored.shape, dtype=torch_dtype(stored.dtype), device="meta")
            for name in names
            if (stored := plan.stored.get(name)) is not None
        }
        for group, names in plan.groups.items()
    }
    return list(plan.block_configs), shapes
