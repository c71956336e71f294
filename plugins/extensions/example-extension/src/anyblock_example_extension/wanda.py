"""Channel importance by weights and activations (Wanda: Sun et al. 2023, arXiv 2306.11695)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.linear_inputs import input_tokens, linear_weight, to_sum
from torch import nn


class WandaChannelContributionHook(ImportanceHook):
    """Score channel *j* of a linear module by `sum_i |W_ij| · ‖x_j‖₂`, its Wanda metric summed over the outputs.

    `x_j` is the channel's input over all calibration tokens; unlike a mean of `|x_j|`, its norm favours rare outliers.
    """

    def __init__(self, module: nn.Module, context: HookContext) -> None:
        super().__init__(module, context)
        self.squares = torch.zeros(linear_weight(module).shape[1], dtype=torch.float64)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add the squared inputs of every channel."""
        self.squares += to_sum(input_tokens(args, kwargs).float().square().sum(dim=0))

    def scores(self) -> torch.Tensor:
        """See `ImportanceHook.scores`; float32 `[channels]`."""
        return (to_sum(linear_weight(self.module).float().abs().sum(dim=0)) * self.squares.sqrt()).float()
