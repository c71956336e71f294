"""`ExportedChild`: a subblock checkpoint as export formats see it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.companions import carry, companions
from anyblock.checkpoint.config import CONFIG
from anyblock.checkpoint.config_view import config_view, layer_view
from anyblock.checkpoint.index import INDEX, index_bytes
from anyblock.checkpoint.json_io import json_bytes
from anyblock.checkpoint.safetensors_writer import InMemory, write_safetensors
from anyblock.checkpoint.transfer import Copier
from anyblock.contract.export_format import Child
from anyblock.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.family import ModelFamily


class ExportedChild(Child):
    """See `anyblock.contract.export_format.Child`; `checkpoint` and `family` are core's own business.

    With `shapes`, tensors on the meta device by name, a model can be looked at that is not converted.
    """

    def __init__(
        self, checkpoint: SubblockCheckpoint, family: ModelFamily, shapes: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        self._shapes = shapes
        self.checkpoint = checkpoint
        self.family = family
        self.path = checkpoint.path
        self.config: Mapping[str, Any] = checkpoint.config
        self.block_configs = checkpoint.block_configs
        self.groups: Mapping[str, tuple[str, ...]] = checkpoint.groups

    @property
    def model_groups(self) -> tuple[str, ...]:
        """See `Child`."""
        return tuple(self.checkpoint.model_groups)

    @property
    def view(self) -> Any:
        """See `Child.view`."""
        return config_view(self.config)

    def load(self, group: str) -> dict[str, torch.Tensor]:
        """See `Child.load`."""
        return self.checkpoint.load(group)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Child.shape`."""
        return tuple((self._shapes[name] if self._shapes else self.checkpoint.entry(name)).shape)

    def text_part(self, config: dict[str, Any]) -> dict[str, Any]:
        """See `Child.text_part`."""
        view = config_view(config)
        text = self.family.language_model_config(view)
        if text is view:
            return config
        stated = text.to_dict()
        return next(value for value in config.values() if isinstance(value, dict) and value == stated)

    def uniform_config(self) -> dict[str, Any] | None:
        """See `Child.uniform_config`.

        Whether they are is asked of the family: unpruned, a model of that configuration must have the child's block configs.
        """
        config = copy.deepcopy(dict(self.config))
        text, overrides_of = self.text_part(config), self.family.block_config_to_layer_overrides
        for block, whole in zip(self.block_configs, self.family.create_block_configs(self.view), strict=True):
            # Where layers of the unpruned model differ by themselves, these differences stay (Gemma 4).
            unpruned = overrides_of(whole)
            overrides = {name: size for name, size in overrides_of(block).items() if size != unpruned.get(name)}
            if "num_attention_heads" in overrides and not text.get("head_dim") and "num_attention_heads" in text:
                text["head_dim"] = text["hidden_size"] // text["num_attention_heads"]
            text.update(overrides)
        try:
            same = self.family.create_block_configs(config_view(config)) == self.block_configs
        except ConfigError:  # transformers refuses what single layers may have, such as a number of heads
            return None
        return config if same else None

    def layer_differences(self) -> list[dict[str, Any]]:
        """See `Child.layer_differences`."""
        from anyblock.modeling.layer_config import per_layer_differences

        text, wholes = self.family.language_model_config(self.view), self.family.create_block_configs(self.view)
        differences: list[dict[str, Any]] = []
        for index, (block, whole) in enumerate(zip(self.block_configs, wholes, strict=True)):
            overrides, unpruned = self.family.block_config_to_layer_overrides(block), layer_view(text, index)
            layer = {} if unpruned is text else per_layer_differences({"config": text.resolve()}, index)
            layer |= {name: value for name, value in overrides.items() if value != getattr(unpruned, name)}
            skip = [
                name
                for name, mine, unpruned in (
                    ("attention", block.attention, whole.attention),
                    ("mlp", block.ffn, whole.ffn),
                )
                if mine.no_op and not unpruned.no_op
            ]
            differences.append(layer | ({"skip": skip} if skip else {}))
        return differences

    def write_directory(
        self,
        directory: Path,
        *,
        config: Mapping[str, Any],
        tensors: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] = lambda stored: stored,
    ) -> None:
        """See `Child.write_directory`; one weight file per group."""
        files: dict[str, str] = {}
        total = 0
        with Copier({}, lambda _: None) as copier:
            carry(companions(self.path), directory, copier)
            for group in self.groups:
                parts = {name: InMemory(tensor) for name, tensor in tensors(self.load(group)).items()}
                file = f"model-{group}.safetensors"
                write_safetensors(directory / file, parts, copier)
                files.update(dict.fromkeys(parts, file))
                total += sum(part.entry.nbytes for part in parts.values())
        content = json_bytes(config)
        (directory / INDEX).write_bytes(index_bytes(files, total, content))
        (directory / CONFIG).write_bytes(content)


def by_layer(differences: list[dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return `{layer index: differences}` of the layers that have any, in order."""
    return {str(index): layer for index, layer in enumerate(differences) if layer}
