"""`inspect`: what a model is made of, from its config and headers alone."""

from __future__ import annotations

from pathlib import Path

from anyblock.costs.cost_model import Scenario, model_costs
from anyblock.report.inspection import Inspection
from anyblock.run.model_source import read_source


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
