"""Channel importance without interaction: how strongly each input of a linear module speaks, on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.linear_inputs import input_tokens, linear_weight, to_sum


class IndependentChannelContributionHook(ImportanceHook):
    """Score channel *i* of a linear module by `‖w_i‖ · Σ_batches mean_tokens |x_i|`.

    `w_i` is the weight's column for that input and `x_i` the input itself; one cheap pass over the activations.
    """

    def __init__(self, module: nn.Module, context: HookContext) -> None:
        super().__init__(module, context)
        self.activations = torch.zeros(linear_weight(module).shape[1], dtype=torch.float64)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add the mean absolute input of every channel."""
        self.activations += to_sum(input_tokens(args, kwargs).abs().mean(dim=0, dtype=torch.float32))

    def weight_norms(self) -> torch.Tensor:
        """Return the Euclidean norm of every weight column, float64 `[channels]`."""
        return to_sum(linear_weight(self.module).norm(dim=0, dtype=torch.float32))

    def scores(self) -> torch.Tensor:
        """See `ImportanceHook.scores`; float32 `[channels]`."""
        return (self.weight_norms() * self.activations).float()
