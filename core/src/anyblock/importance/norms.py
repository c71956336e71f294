"""Importance of the residual stream's channels, and of a module's inputs, by the size of activations alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.linear_inputs import as_tokens, linear_weight, to_sum


class LayerNormContributionHook(ImportanceHook):
    """Score a channel by `Σ_batches mean_tokens |out|` at a norm's output; for the hidden size."""

    def __init__(self, module: nn.Module, context: HookContext) -> None:
        super().__init__(module, context)
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        self.activations = torch.zeros(weight.shape[-1], dtype=torch.float64)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add the mean absolute output of every channel."""
        self.activations += to_sum(as_tokens(output).abs().mean(dim=0, dtype=torch.float32))

    def scores(self) -> torch.Tensor:
        """See `ImportanceHook.scores`; float32 `[hidden]`."""
        return self.activations.float()


class L2NormHook(ImportanceHook):
    """Score an input channel of a linear module by `sqrt(Σ_sequences (mean_positions |x|)²)`, as Minitron does.

    Args:
        module: the linear module.
        context: see `HookContext`.
        batch_first: inputs are `[batch, positions, features]`; False for `[positions, batch, features]`. Inputs
            `[tokens, features]` are one sequence.
    """

    def __init__(self, module: nn.Module, context: HookContext, batch_first: bool = True) -> None:
        super().__init__(module, context)
        self.positions = 1 if batch_first else 0
        self.squares = torch.zeros(linear_weight(module).shape[1], dtype=torch.float64)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add the squared mean absolute input of every sequence."""
        inputs: torch.Tensor = args[0] if args else next(iter(kwargs.values()))
        if inputs.dim() == 2:
            inputs = inputs.unsqueeze(1 - self.positions)
        means = inputs.detach().abs().mean(dim=self.positions, dtype=torch.float32)
        self.squares += to_sum(means.square().sum(dim=0))

    def scores(self) -> torch.Tensor:
        """See `ImportanceHook.scores`; float32 `[channels]`."""
        return self.squares.sqrt().float()
