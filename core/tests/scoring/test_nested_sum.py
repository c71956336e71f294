"""A linear module as a sum, of which smaller candidates have the first terms."""

from __future__ import annotations

import pytest
import torch
from anyblock.scoring.nested_sum import NestedSum
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Ffn(nn.Module):
    """Something around a linear module that returns its result as it is."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.down_proj = nn.Linear(width, 8, bias=bias)

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        return self.down_proj(units)


class Layer(nn.Module):
    """A layer with that and a residual."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.mlp = Ffn(width, bias)

    def forward(self, units: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return residual + self.mlp(units)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.no_grad()
def test_every_part_is_the_smaller_module_and_all_cost_as_much_as_the_largest(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = Layer(30, bias).to(dtype)
    units, residual = torch.randn(5, 30, dtype=dtype), torch.randn(5, 8, dtype=dtype)
    plain = layer(units, residual)
    whole = NestedSum(layer, "mlp.down_proj")
    with FlopCounterMode(display=False) as counted, whole.watched([7, 12, 29]):
        output = layer(units, residual)
        found = dict(zip((7, 12, 29), whole.parts(), strict=True))
    assert counted.get_total_flops() == 2 * 5 * 30 * 8
    near = {"rtol": 0, "atol": 64 * torch.finfo(dtype).eps}
    torch.testing.assert_close(output, plain, **near)
    for width, (name, answer) in found.items():
        smaller = Layer(width, bias).to(dtype)
        smaller.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, :width])
        if bias:
            smaller.mlp.down_proj.bias.copy_(layer.mlp.down_proj.bias)
        assert name == "mlp"
        assert answer().dtype == dtype
        torch.testing.assert_close(answer(), smaller.mlp(units[:, :width]), **near)
