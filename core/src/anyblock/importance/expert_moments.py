"""Second moments of every expert's activations, from which the experts' output projections are fitted again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anyblock.contract.importance_hook import ActivationStatistic, HookContext
from anyblock.importance.expert_channels import check_fused_experts, expert_activations
from anyblock.importance.statistics import HeldOut, Moments
from anyblock.importance.voting import moe_config


class ExpertGramStatistic(HeldOut, ActivationStatistic):
    """Collect `C_e = Σ p² h hᵀ` of every expert *e*, in two parts: one to fit on, one to judge the fit by.

    `h` is the expert's intermediate activation for a token that reaches it, and `p` the token's weight for the expert, so
    that `tr(D C_e Dᵀ)` is what a change `D` of its output projection changes of the layer's output. Attach it to the module
    that holds the experts' fused weights.

    Args:
        module: see `ExpertChannelContributionHook`.
        context: see `HookContext`.
        held_out_every: every n-th batch is held out; 0 holds nothing out.
        dtype: the type of the sums. One `[experts, channels, channels]` tensor a part is kept on the CPU.
    """

    def __init__(
        self,
        module: nn.Module,
        context: HookContext,
        held_out_every: int = 4,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(module, context)
        moe = moe_config(context, type(self).__name__)
        check_fused_experts(module)
        self.hold_out(held_out_every)
        shape = (moe.num_local_experts, moe.expert_intermediate_dim, moe.expert_intermediate_dim)
        self.gram = torch.zeros(shape, dtype=dtype)
        self.held_out_gram = torch.zeros(shape if held_out_every else (0, 0, 0), dtype=dtype)
        self.tokens = torch.zeros((2, moe.num_local_experts), dtype=torch.int64)

    @property
    def fit(self) -> tuple[Moments, ...]:
        """The part to fit on, one entry an expert; an expert that no token reached has moments of no tokens."""
        return self._moments(self.gram, 0)

    @property
    def held_out(self) -> tuple[Moments, ...]:
        """The part to judge by, one entry an expert."""
        return self._moments(self.held_out_gram, 1)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Compute every expert's activations again, for the tokens that it received."""
        held_out = self._holds_out()
        grams = self.held_out_gram if held_out else self.gram
        for expert, active, weight in expert_activations(self.module, args, kwargs):
            if expert < len(grams):
                x = active.to(grams.dtype) * weight.to(grams.dtype).unsqueeze(1)
                grams[expert] += (x.t() @ x).to(grams.device)
                self.tokens[int(held_out), expert] += len(x)

    def _moments(self, grams: torch.Tensor, part: int) -> tuple[Moments, ...]:
        return tuple(Moments(gram, int(tokens)) for gram, tokens in zip(grams, self.tokens[part], strict=True))
