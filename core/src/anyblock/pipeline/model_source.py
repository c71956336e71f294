"""The model a run starts from, as its config and headers describe it; no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.dtypes import torch_dtype
from anyblock.checkpoint.header import TensorEntry
from anyblock.checkpoint.plan import plan_conversion
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.contract.blocks import BlockConfig
from anyblock.family import ModelFamily, get_family

if TYPE_CHECKING:
    import torch

Shapes = dict[str, dict[str, "torch.Tensor"]]
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
    """

    path: Path
    model_type: str
    family: ModelFamily
    config: Any
    block_configs: list[BlockConfig]
    shapes: Shapes

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
        CheckpointError: the files are damaged, or hold tensors that the adapter does not know.
        UnsupportedModelError: no installed adapter serves the model.
    """
    raw = read_config(path)
    model_type = raw["model_type"]
    adapter = get_family(model_type)
    view = config_view(path, trust_remote_code=trust_remote_code)
    if is_subblock_checkpoint(path):
        checkpoint = SubblockCheckpoint.open(path)
        shapes = {group: checkpoint.meta(group) for group in checkpoint.groups}
        return Source(path, model_type, adapter, view, checkpoint.block_configs, shapes)
    blocks, shapes = _planned(adapter, path, raw, view)
    return Source(path, model_type, adapter, view, blocks, shapes)


def _planned(family: ModelFamily, path: Path, raw: dict[str, Any], view: Any) -> tuple[list[BlockConfig], Shapes]:
    import torch

    source = SourceCheckpoint.open(path)
    plan = plan_conversion(family, source, raw, view)

    def meta(entry: TensorEntry) -> torch.Tensor:
        return torch.empty(entry.shape, dtype=torch_dtype(entry.dtype), device="meta")

    def shape(name: str) -> torch.Tensor:
        """Return a tensor on the meta device with the shape and dtype that the conversion will give."""
        if name in plan.stored:
            return meta(plan.stored[name].entry)
        sources = {origin: meta(source.tensors[origin][1]) for origin in plan.computed[name]}
        return family.dequantize_tensor(name, sources, view)

    return list(plan.block_configs), {
        group: {name: shape(name) for name in names} for group, names in plan.groups.items()
    }
