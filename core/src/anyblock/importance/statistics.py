"""Second moments of activations, from which weights are fitted by least squares; they live like importance hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from anyblock.contract.importance_hook import ActivationStatistic, HookContext
from anyblock.contract.linear_inputs import as_tokens, input_tokens, linear_weight
from anyblock.errors import UsageError
from anyblock.modeling.no_op import hidden_states_of

HELD_OUT_EVERY: Final = 4
"""Every n-th batch is held out to judge a fit; of two or three batches, the last."""
_TOKENS: Final = 2048


@dataclass(frozen=True)
class Moments:
    """Sums over tokens.

    Attributes:
        inputs: `Σ x xᵀ`, `[in, in]`.
        tokens: how many tokens were summed.
        cross: `Σ y xᵀ`, `[out, in]`; None unless outputs were watched.
        outputs: `Σ ‖y‖²`; None unless outputs were watched.
    """

    inputs: torch.Tensor
    tokens: int
    cross: torch.Tensor | None = None
    outputs: float | None = None


class HeldOut:
    """Says which batches of an `ActivationStatistic` are held out to judge a fit by."""

    batches: int
    held_out_every: int

    def hold_out(self, every: int) -> None:
        """Hold out every n-th batch; 0 holds nothing out.

        Raises:
            UsageError: every batch would be held out.
        """
        if every < 0 or every == 1:
            raise UsageError(f"held_out_every is {every}", expected="0, or a number from 2 on")
        self.held_out_every = every

    def _holds_out(self) -> bool:
        return self.held_out_every > 0 and self.batches % self.held_out_every == self.held_out_every - 1


class GramStatistic(HeldOut, ActivationStatistic):
    """Collect the Gram matrix `C = Σ x xᵀ` of a module's inputs, in two parts: one to fit on, one to judge the fit by.

    Args:
        module: a linear module, for instance `mlp.down_proj`.
        context: see `HookContext`.
        held_out_every: every n-th batch is held out; 0 holds nothing out.
        dtype: the type of the sums, float32 or float64. One `[in, in]` matrix a part is kept on the CPU.
    """

    def __init__(
        self,
        module: nn.Module,
        context: HookContext,
        held_out_every: int = 4,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(module, context)
        self.hold_out(held_out_every)
        size = self._input_size(module)
        self.gram = torch.zeros((size, size), dtype=dtype)
        self.held_out_gram = torch.zeros((size, size) if held_out_every else (0, 0), dtype=dtype)
        self.tokens = torch.zeros(2, dtype=torch.int64)

    @property
    def fit(self) -> Moments:
        """The part to fit on."""
        return Moments(self.gram, int(self.tokens[0]))

    @property
    def held_out(self) -> Moments:
        """The part to judge by.

        Raises:
            UsageError: no batch was held out.
        """
        self._check_held_out()
        return Moments(self.held_out_gram, int(self.tokens[1]))

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add the outer products of all tokens' inputs to one of the parts."""
        held_out = self._holds_out()
        gram = self.held_out_gram if held_out else self.gram
        inputs = self._inputs(args, kwargs)
        for block in torch.split(inputs, _TOKENS):
            x = block.to(gram.dtype)
            if x.device == gram.device:
                gram.addmm_(x.t(), x)
            else:
                gram += (x.t() @ x).to(gram.device)
        self.tokens[int(held_out)] += len(inputs)

    def _check_held_out(self) -> None:
        if not self.tokens[1]:
            raise UsageError(
                f"{self._where()}: no batch was held out of {self.batches}",
                expected=f"at least {self.held_out_every or 2} batches, and held_out_every above 1",
            )

    def _input_size(self, module: nn.Module) -> int:
        return linear_weight(module).shape[1]

    def _inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        return input_tokens(args, kwargs)


class LinearFitStatistic(GramStatistic):
    """Collect what a linear map from a module's inputs to its outputs is fitted on: `Σ x xᵀ`, `Σ y xᵀ` and `Σ ‖y‖²`.

    The module need not be linear: attach it to a whole subblock to replace that by one matrix.

    Args:
        module: any module that maps hidden states to hidden states.
        context: see `HookContext`.
        held_out_every: see `GramStatistic`.
        dtype: see `GramStatistic`.
    """

    def __init__(
        self,
        module: nn.Module,
        context: HookContext,
        held_out_every: int = 4,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(module, context, held_out_every, dtype)
        self.cross = torch.zeros_like(self.gram)
        self.held_out_cross = torch.zeros_like(self.held_out_gram)
        self.squares = torch.zeros(2, dtype=torch.float64)

    @property
    def fit(self) -> Moments:
        """The part to fit on."""
        return Moments(self.gram, int(self.tokens[0]), self.cross, float(self.squares[0]))

    @property
    def held_out(self) -> Moments:
        """See `GramStatistic.held_out`."""
        self._check_held_out()
        return Moments(self.held_out_gram, int(self.tokens[1]), self.held_out_cross, float(self.squares[1]))

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add one batch to one of the parts."""
        super().observe(args, kwargs, output)
        held_out = self._holds_out()
        cross = self.held_out_cross if held_out else self.cross
        pairs = zip(
            torch.split(self._inputs(args, kwargs), _TOKENS), torch.split(as_tokens(output), _TOKENS), strict=True
        )
        for x, y in pairs:
            cross += (y.to(cross.dtype).t() @ x.to(cross.dtype)).cpu()
            self.squares[int(held_out)] += y.double().square().sum().cpu()

    def _input_size(self, module: nn.Module) -> int:
        return int(self.context.config.hidden_size)

    def _inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        return as_tokens(hidden_states_of(args, kwargs))
