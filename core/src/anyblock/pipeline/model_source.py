"""The model a run starts from, as its config and headers describe it; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.contract.blocks import BlockConfig
from anyblock.conversion.plan import plan_conversion
from anyblock.family import ModelFamily, get_family
from anyblock.modeling.complete import skeleton_of
from anyblock.modeling.skeleton import load_hf_config

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, Mapping[str, "torch.Tensor"]]
"""`{group: {tensor name: tensor on the meta device}}`."""


@dataclass(frozen=True)
class Source:
    """A model before anything is loaded.

    Attributes:
        path: a Hugging Face directory, a subblock checkpoint or a child.
        model_type: from `config.json`.
        family: its adapter.
        config: a view of `config.json` with Hugging Face's defaults.
        block_configs: one a layer.
        shapes: every tensor's shape and dtype by group.
        notes: what a user should hear of the model, a sentence each.
    """

    path: Path
    model_type: str
    family: ModelFamily
    config: Any
    block_configs: list[BlockConfig]
    shapes: Shapes
    notes: Sequence[str] = ()

    @property
    def text_config(self) -> Any:
        """The language model's part of the config."""
        return self.family.language_model_config(self.config)


def read_source(path: Path, *, trust_remote_code: bool = False) -> Source:
    """Read config and headers.

    Args:
        path: the model.
        trust_remote_code: let transformers run the checkpoint's own configuration code where a default is needed.

    Raises:
        ConfigError: `config.json` is unusable.
        CheckpointError: the files are damaged, or do not hold exactly the tensors of the model.
        UnsupportedModelError: no installed adapter serves the model.
    """
    raw = read_config(path)
    model_type = raw["model_type"]
    adapter = get_family(model_type)
    if not is_subblock_checkpoint(path):
        plan = plan_conversion(adapter, SourceCheckpoint.open(path), raw, trust_remote_code=trust_remote_code)
        return Source(path, model_type, adapter, plan.view, list(plan.block_configs), plan.shapes, plan.notes)
    checkpoint = SubblockCheckpoint.open(path)
    skeleton_of(checkpoint, adapter, load_hf_config(path, trust_remote_code=trust_remote_code))
    view = config_view(path, trust_remote_code=trust_remote_code)
    shapes = {group: checkpoint.meta(group) for group in checkpoint.groups}
    return Source(path, model_type, adapter, view, checkpoint.block_configs, shapes)
