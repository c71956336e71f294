"""The recorded operations of a layer: they can be run again, and lead back to the weights, whatever was written where."""

from __future__ import annotations

import pytest
import torch
from anyblock_new_family.introspection.layers import find_layers
from anyblock_new_family.introspection.model import TinyModel, tiny_model
from anyblock_new_family.introspection.trace import Trace
from torch import nn
from transformers import CONFIG_MAPPING


class Parts(nn.Module):
    """Puts its result together in memory that is empty at first, as latent attentions do."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3, bias=False), nn.Linear(4, 5, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        found = hidden.new_empty(*hidden.shape[:-1], 8)
        found[..., :3] = self.left(hidden)
        found[..., 3:].copy_(self.right(hidden))
        found.mul_(2)
        found[..., 1:2].add_(1)
        return found + 1


@torch.no_grad()
def test_what_is_written_to_a_part_belongs_to_the_whole() -> None:
    module, hidden = Parts(), torch.randn(2, 4)
    trace = Trace(module)
    with trace:
        output = module(hidden)
    value = trace.value(output)
    steps = trace.behind(value)
    assert trace.weights_of(steps) == {"left.weight", "right.weight"}
    for _ in range(5):  # what was empty holds something else each time
        torch.testing.assert_close(trace.replay(steps, {})[value], output, rtol=0, atol=0)
    other = torch.randn(2, 4)
    torch.testing.assert_close(trace.replay(steps, {trace.value(hidden): other})[value], module(other))


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["glm_moe_dsa", "deepseek_v3", "gpt_oss", "falcon_h1", "xmod"])
def test_layers_run_again_return_the_same(model_type: str) -> None:
    tiny: TinyModel = tiny_model(CONFIG_MAPPING[model_type])
    for run in find_layers(tiny.model, tiny.ids, int(tiny.text.num_hidden_layers)).runs:
        trace = Trace(run.module)
        with trace:
            output = run.module(*run.args, **run.kwargs)
        value = trace.value(output if isinstance(output, torch.Tensor) else output[0])
        again = trace.replay(trace.behind(value), {})[value]
        torch.testing.assert_close(again, trace.tensors[value], rtol=1e-5, atol=1e-6)
