"""Importance of key-value heads: what each group of query heads adds to the attention's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import torch
from torch import nn

from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.linear_inputs import input_tokens, linear_weight, to_sum
from anyblock.errors import UsageError

_TOKENS: Final = 2048


class IndependentKvHeadContributionHook(ImportanceHook):
    """Score key-value head *g* by `Σ_batches mean_tokens ‖a_g W_gᵀ‖` on the attention's output projection.

    `a_g` is the part of the projection's input that the query heads of *g* wrote, and `W_g` are its columns. The number
    of heads comes from the block config and a group's width from the projection itself, so no configuration is needed.

    Args:
        module: the output projection, for instance `self_attn.o_proj`.
        context: see `HookContext`.
        optimize_for: `memory` takes one head after another, `latency` all at once; the result is the same.
    """

    units: ClassVar[str] = "key-value heads"

    @staticmethod
    def heads_of(context: HookContext) -> int | None:
        """Return the number of heads of the block; None where it has none.

        In latent attention every query head has keys and values of its own.
        """
        attention = context.block_config.attention
        return attention.num_key_value_heads or attention.num_attention_heads

    def __init__(
        self, module: nn.Module, context: HookContext, optimize_for: Literal["memory", "latency"] = "memory"
    ) -> None:
        super().__init__(module, context)
        if optimize_for not in ("memory", "latency"):
            raise UsageError(f"optimize_for is {optimize_for!r}", expected="'memory' or 'latency'")
        heads = self.heads_of(context)
        width = linear_weight(module).shape[1]
        if not heads or width % heads:
            raise UsageError(
                f"{self._where()}: an input of {width} for {heads} {self.units}",
                expected=f"an output projection whose input holds equally wide groups, one for each of the {self.units}",
            )
        self.batched = optimize_for == "latency"
        self.heads = heads
        self.contribution = torch.zeros(heads, dtype=torch.float64)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add the mean norm of every group's contribution."""
        inputs = input_tokens(args, kwargs)
        weight = linear_weight(self.module)
        groups = weight.reshape(weight.shape[0], self.heads, -1)  # [out, heads, group width]
        for tokens in torch.split(inputs, _TOKENS):
            parts = tokens.reshape(len(tokens), self.heads, -1)
            if self.batched:
                written = torch.einsum("thd,ohd->hto", parts.float(), groups.float())
                norms = written.norm(dim=2).sum(dim=1)
            else:
                norms = torch.stack(
                    [(parts[:, h].float() @ groups[:, h].float().t()).norm(dim=1).sum() for h in range(self.heads)]
                )
            self.contribution += to_sum(norms) / len(inputs)

    def scores(self) -> torch.Tensor:
        """See `ImportanceHook.scores`; float32 `[heads]`."""
        return self.contribution.float()


class MambaHeadContributionHook(IndependentKvHeadContributionHook):
    """Score the heads of a Mamba mixer in the same way, by what each adds to the mixer's output projection."""

    units: ClassVar[str] = "Mamba heads"

    @staticmethod
    def heads_of(context: HookContext) -> int | None:
        """See `IndependentKvHeadContributionHook.heads_of`."""
        mamba = context.block_config.attention.mamba
        return None if mamba is None else mamba.num_heads
