"""Buffers that no checkpoint holds are filled by whoever fills them in transformers, and nothing else is touched."""

from __future__ import annotations

import torch
from anyblock.modeling.buffers import rebuild_buffers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, initialization


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("own", torch.zeros(3), persistent=False)
        self.register_buffer("from_above", torch.zeros(3), persistent=False)
        self.register_buffer("stored", torch.zeros(3))


class Above(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList([Scaled(), Scaled()])
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Scaled):
            initialization.constant_(module.own, 2.0)
            initialization.constant_(module.stored, 3.0)
        if isinstance(module, Above):
            for layer in module.layers:
                initialization.constant_(layer.from_above, 5.0)
                initialization.constant_(layer.weight, 7.0)


def test_buffers_that_the_model_around_a_module_fills() -> None:
    with torch.device("meta"):
        model = Above(PreTrainedConfig())
    for layer in model.layers:
        layer.weight = nn.Parameter(torch.full((3,), 0.5))
        layer.stored = torch.full((3,), 0.25)
    rebuild_buffers(model, "cpu")
    for layer in model.layers:
        found = {name: tensor.unique().tolist() for name, tensor in (*layer.named_parameters(), *layer.named_buffers())}
        assert found == {"weight": [0.5], "own": [2.0], "from_above": [5.0], "stored": [0.25]}
