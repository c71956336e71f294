"""`inspect`: what a model is made of, from its config and headers alone."""

from __future__ import annotations

from pathlib import Path

from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.costs.cost_model import Scenario, model_costs
from anyblock.export.export import formats_of
from anyblock.export.exported_child import ExportedChild
from anyblock.report.inspection import Inspection
from anyblock.run.model_source import Source, read_source


def inspect_model(path: Path, scenario: Scenario, *, formats: bool = False) -> Inspection:
    """Read config and headers of a Hugging Face directory, a subblock checkpoint or a child.

    With `formats`, every export format is asked about it; some read its tokenizer, or build it without weights.

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
        formats=formats_of(_seen(source)) if formats else None,
    )


def _seen(source: Source) -> ExportedChild:
    """Return a model as export formats see it, converted or not."""
    config = {key: value for key, value in read_config(source.path).items() if key != "block_configs"}
    groups = {group: tuple(tensors) for group, tensors in source.shapes.items()}
    shapes = {name: own for tensors in source.shapes.values() for name, own in tensors.items()}
    return ExportedChild(SubblockCheckpoint(source.path, config, source.block_configs, groups), source.family, shapes)
