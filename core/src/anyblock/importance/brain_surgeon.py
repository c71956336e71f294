"""Channel importance for a linear map that is re-fitted afterwards: what the others cannot make up for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import nn

from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.linear_inputs import input_tokens, linear_weight
from anyblock.errors import UsageError

_TOKENS: Final = 2048
_STEPS: Final = 96  # removals between which weights are re-fitted; one by one gives nearly the same order


class OptimalBrainSurgeonHook(ImportanceHook):
    """Remove the channels of a linear module a few at a time, re-fit the others, and score each channel by how late it went.

    With `C = Σ x xᵀ` over the calibration's tokens and `H⁻¹ = (C + λI)⁻¹`, removing channel *j* and re-fitting the others by
    least squares makes the squared error `‖w_j‖² / H⁻¹_jj` (Hassibi & Stork 1993; for whole columns Frantar & Alistarh 2022).
    The cheapest `R` go; with `K = H⁻¹[R,R]⁻¹ H⁻¹[R,:]` the re-fitted weight is `W - W_R K` and the new inverse
    `H⁻¹ - H⁻¹[:,R] K`. The order is nested: a narrower child keeps the first channels of a wider one.

    The order counts on a repair by least squares afterwards. One matrix `[channels, channels]` in float32 is kept while a layer is
    calibrated, and a few in float64 after it.

    Args:
        module: the linear module, for instance `mlp.down_proj`.
        context: see `HookContext`.
        ridge: `λ`, relative to the mean of `C`'s diagonal.
    """

    for_repair: ClassVar[bool] = True

    def __init__(self, module: nn.Module, context: HookContext, ridge: float = 1e-3) -> None:
        super().__init__(module, context)
        if not ridge > 0:
            raise UsageError(f"ridge is {ridge!r}", expected="a number above 0")
        self.ridge = ridge
        weight = linear_weight(module)
        self.gram = torch.zeros(weight.shape[1], weight.shape[1], device=weight.device)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add the outer products of all tokens' inputs."""
        for block in torch.split(input_tokens(args, kwargs), _TOKENS):
            x = block.to(self.gram)
            self.gram.addmm_(x.t(), x)

    def scores(self) -> torch.Tensor:
        """Return every channel's place in the order of removal, float32 `[channels]`: 0 went first."""
        order = self.ascending()
        result = torch.empty(len(order))
        result[order] = torch.arange(len(order), dtype=torch.float32)
        return result

    @torch.no_grad()
    def ascending(self) -> torch.Tensor:
        """Return the channels from the least to the most important, int64 `[channels]`."""
        # Nothing depends on the weights of channels that never spoke.
        weight = linear_weight(self.module).to(torch.float64) * (self.gram.diagonal() > 0)
        channels = weight.shape[1]
        inverse = self._inverse()
        left = torch.arange(channels, device=weight.device)
        each = -(-channels // _STEPS)
        removed: list[torch.Tensor] = []
        while len(left):
            # Clamped: rounding can take the inverse of a channel that the others determine below zero.
            costs = weight.square().sum(0) / inverse.diagonal().clamp_min(torch.finfo(torch.float64).tiny)
            # Of equal costs the last goes first, so that the lower index is kept, as everywhere.
            worst = (len(left) - 1 - torch.argsort(costs.flip(0), stable=True))[:each]
            stay = torch.ones(len(left), dtype=torch.bool, device=left.device)
            stay[worst] = False
            removed.append(left[worst])
            factor = torch.linalg.solve(inverse[worst][:, worst], inverse[worst][:, stay])
            weight = weight[:, stay].addmm(weight[:, worst], factor, alpha=-1)
            inverse = inverse[stay][:, stay].addmm(inverse[stay][:, worst], factor, alpha=-1)
            left = left[stay]
        return torch.cat(removed).cpu()

    def _inverse(self) -> torch.Tensor:
        """Return `(C + λI)⁻¹` in float64."""
        gram = self.gram.to(torch.float64)
        mean = float(gram.diagonal().mean())
        gram.diagonal().add_(self.ridge * mean if mean > 0 else 1.0)
        return torch.cholesky_inverse(torch.linalg.cholesky(gram))
