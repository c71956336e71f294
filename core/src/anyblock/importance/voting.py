"""Expert importance by ranked-choice voting over the router's preferences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anyblock.contract.blocks import MoEConfig
from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.errors import UsageError
from anyblock.importance.router import choice_scores


def moe_config(context: HookContext, what: str) -> MoEConfig:
    """Return the block's sparse configuration.

    Raises:
        UsageError: the block's ffn is not sparse.
    """
    moe = context.block_config.ffn.moe
    if moe is None:
        raise UsageError(
            f"{what} of layer {context.layer_index}: the ffn is not sparse", expected="a block with ffn.moe"
        )
    return moe


class RankedChoiceVotingHook(ImportanceHook):
    """Every token votes for its `top_k` favourite experts; the one with the fewest votes goes, and its votes move on.

    Repeated until none is left; an expert's score is the round in which it went, so the last one standing is the most
    important. Between equal counts the expert that tokens rank lower on the whole goes first, so one that no token ever
    chooses goes before all others; where these are equal too, the lower index is kept. Attach it to the router.

    Preferences are kept as one small integer for each token and expert.
    """

    def __init__(self, module: nn.Module, context: HookContext) -> None:
        super().__init__(module, context)
        moe = moe_config(context, type(self).__name__)
        self.top_k, self.num_experts = moe.num_experts_per_tok, moe.num_local_experts
        self._dtype = torch.uint8 if self.num_experts <= 256 else torch.int16
        self._rankings: list[torch.Tensor] = []

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Keep every token's order of preference."""
        scores = choice_scores(self.module, args, kwargs, output, self.num_experts)
        order = scores.argsort(dim=1, descending=True, stable=True)
        self._rankings.append(order.to(device="cpu", dtype=self._dtype))

    @property
    def rankings(self) -> torch.Tensor:
        """The experts in the order of every token's preference, `[tokens, experts]`."""
        self._rankings = [torch.cat([torch.empty((0, self.num_experts), dtype=self._dtype), *self._rankings])]
        return self._rankings[0]

    def scores(self) -> torch.Tensor:
        """Return the round in which each expert went, float32 `[experts]`."""
        rankings = self.rankings.long()
        tokens, experts = rankings.shape
        place = torch.empty_like(rankings).scatter_(1, rankings, torch.arange(experts).expand(tokens, -1))
        dislike = place.sum(dim=0)
        # A token's votes are the standing experts among its first `reach` preferences.
        reach = torch.full((tokens,), min(self.top_k, experts))
        standing = torch.ones(experts, dtype=torch.bool)
        counts = torch.bincount(rankings[:, : self.top_k].reshape(-1), minlength=experts)
        result = torch.empty(experts)
        for index in range(experts):
            left = standing.nonzero().squeeze(1).tolist()
            # Of equal ones the last goes first, so that the lower index is kept, as everywhere.
            loser = min(left, key=lambda expert: (int(counts[expert]), -int(dislike[expert]), -expert))
            result[loser] = index
            standing[loser] = False
            counts[loser] = 0
            moving = (place[:, loser] < reach).nonzero().squeeze(1)
            while moving.numel():
                moving = moving[reach[moving] < experts]
                chosen = rankings[moving, reach[moving]]
                reach[moving] += 1
                found = standing[chosen]
                counts += torch.bincount(chosen[found], minlength=experts)
                moving = moving[~found]
        return result
