"""Greedy channel importance that knows the error already made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import torch
from torch import nn

from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.linear_inputs import as_tokens, input_tokens, linear_bias, linear_weight, to_sum
from anyblock.errors import UsageError

_TOKENS: Final = 2048  # tokens and channels that are in work at once: temporaries are at most [_TOKENS, _CHANNELS]
_CHANNELS: Final = 512
_EPSILON: Final = 1e-8


def pruning_schedule(num_channels: int, num_batches: int) -> list[int]:
    """Return how many channels to remove after each batch, so that all are gone after the last.

    With at least as many channels as batches, every batch removes `num_channels // num_batches`, the first ones one
    more. Otherwise channel *i* (from 1) goes after batch `i · num_batches // num_channels` (from 1).
    """
    if num_channels >= num_batches:
        each, more = divmod(num_channels, num_batches)
        return [each + (batch < more) for batch in range(num_batches)]
    schedule = [0] * num_batches
    for channel in range(1, num_channels + 1):
        schedule[channel * num_batches // num_channels - 1] += 1
    return schedule


class IterativeChannelContributionHook(ImportanceHook):
    """Remove the channels of a linear module one group a batch and score each by how late it went.

    With `P` the channels removed so far, `y` the output without bias, `y'` the output without `P` and
    `s = αy - y'` the error already made, removing channel *i* as well makes the error
    `‖s + x_i w_i‖ = sqrt(‖s‖² + 2 x_i (s·w_i) + x_i² ‖w_i‖²)`; its mean over all tokens, summed since the last removal,
    decides who goes next. `α` is 1, or `‖y'‖ / ‖y‖` for each token with `scale_by_magnitude`.

    `y - y'` needs only the removed columns and `s·w_i` only the others, so a batch costs one product of the layer's own
    size; both run over blocks of channels, so nothing of the size `[tokens, channels]` is made. Products are float32.

    The schedule spreads all channels over `context.num_batches`. Fewer batches leave the rest ranked by what was summed
    last; further batches change nothing.

    Args:
        module: the linear module, for instance `mlp.down_proj`.
        context: see `HookContext`; `num_batches` sets the schedule.
        calibration_method: None, or `scale_by_magnitude`.
    """

    def __init__(
        self,
        module: nn.Module,
        context: HookContext,
        calibration_method: Literal["scale_by_magnitude"] | None = None,
    ) -> None:
        super().__init__(module, context)
        if calibration_method not in (None, "scale_by_magnitude"):
            raise UsageError(f"calibration_method is {calibration_method!r}", expected="null or 'scale_by_magnitude'")
        if context.num_batches < 1:
            raise UsageError(f"{self._where()}: num_batches is {context.num_batches}", expected="at least one batch")
        self.scales = calibration_method is not None
        channels = linear_weight(module).shape[1]
        self.schedule = pruning_schedule(channels, context.num_batches)
        self.contribution = torch.zeros(channels, dtype=torch.float64)
        self.removed = torch.empty(0, dtype=torch.int64)
        """The channels removed so far, in the order of removal."""

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Sum the contributions of the channels that are left, and remove as many as are due."""
        left = self._left()
        if self.batches >= len(self.schedule) or not left.numel():
            return
        inputs, outputs = input_tokens(args, kwargs), as_tokens(output)
        for start in range(0, len(inputs), _TOKENS):
            tokens = slice(start, start + _TOKENS)
            self._add(inputs[tokens], outputs[tokens], left, total=len(inputs))
        if due := self.schedule[self.batches]:
            self.removed = torch.cat([self.removed, self._worst_first(left)[:due]])
            self.contribution.zero_()

    def scores(self) -> torch.Tensor:
        """Return every channel's place in the order of removal, float32 `[channels]`: 0 went first."""
        result = torch.empty(len(self.contribution))
        result[self.ascending()] = torch.arange(len(result), dtype=torch.float32)
        return result

    def ascending(self) -> torch.Tensor:
        """Return the channels from the least to the most important, int64 `[channels]`."""
        return torch.cat([self.removed, self._worst_first(self._left())])

    def _worst_first(self, left: torch.Tensor) -> torch.Tensor:
        """Sort by contribution; of equal ones the last goes first, so that the lower index is kept, as everywhere."""
        last_first = left.flip(0)
        return last_first[torch.argsort(self.contribution[last_first], stable=True)]

    def _left(self) -> torch.Tensor:
        left = torch.ones(len(self.contribution), dtype=torch.bool)
        left[self.removed] = False
        return left.nonzero().squeeze(1)

    def _add(self, inputs: torch.Tensor, outputs: torch.Tensor, left: torch.Tensor, *, total: int) -> None:
        weight = linear_weight(self.module)
        error = self._error(inputs, outputs, weight)
        squared_error = None if error is None else error.square().sum(dim=1, keepdim=True).add_(_EPSILON)
        for block in torch.split(left, _CHANNELS):
            columns = block.to(weight.device)
            x = inputs.index_select(1, columns).float()
            w = weight.index_select(1, columns).float()
            terms = x * torch.linalg.vector_norm(w, dim=0).square_()
            if error is None or squared_error is None:
                terms.mul_(x).add_(_EPSILON)
            else:
                terms.addmm_(error, w, alpha=2)
                # Rounding can take a vanishing error below zero.
                terms.mul_(x).add_(squared_error).clamp_min_(0)
            # Rows are all added up in the same order, columns are not: dead channels have to tie to the last digit.
            self.contribution[block] += to_sum(terms.sqrt_().t().contiguous().sum(dim=1)) / total

    def _error(self, inputs: torch.Tensor, outputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
        if not self.removed.numel():
            return None
        error = inputs.new_zeros((len(inputs), weight.shape[0]), dtype=torch.float32)
        for columns in self._removed_blocks(weight.device):
            error.addmm_(inputs.index_select(1, columns).float(), weight.index_select(1, columns).float().t())
        if self.scales:
            full = outputs.float()
            bias = linear_bias(self.module)
            if bias is not None:
                full = full - bias.float()
            scale = (full - error).norm(dim=1, keepdim=True) / (full.norm(dim=1, keepdim=True) + _EPSILON)
            error.addcmul_(full, scale - 1)
        return error

    def _removed_blocks(self, device: torch.device) -> Iterator[torch.Tensor]:
        for block in torch.split(self.removed.sort().values, _CHANNELS):
            yield block.to(device)
