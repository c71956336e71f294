"""The configuration of `nemotron-nas` checkpoints, which transformers does not have; it goes along with an export.

Tools read a layer's sizes as attributes (`config.block_configs[3].attention.no_op`), and `config.json` has them as objects.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from transformers import LlamaConfig


class DeciLMConfig(LlamaConfig):  # type: ignore[misc]
    """A Llama's configuration with `block_configs`, one a layer."""

    model_type = "nemotron-nas"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "block_configs" and value is not None:
            value = [
                SimpleNamespace(**{half: SimpleNamespace(**sizes) for half, sizes in block.items()})
                if isinstance(block, dict)
                else block
                for block in value
            ]
        super().__setattr__(name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `config.json`."""
        plain = copy.copy(self)
        blocks = plain.__dict__.pop("block_configs", None)
        data: dict[str, Any] = LlamaConfig.to_dict(plain)
        if blocks is not None:
            data["block_configs"] = [
                {half: dict(vars(sizes)) for half, sizes in vars(block).items()} for block in blocks
            ]
        return data
