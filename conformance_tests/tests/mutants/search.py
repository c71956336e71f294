"""Whole runs."""

from __future__ import annotations

import torch
from anyblock.contract.hookspecs import hookimpl
from anyblock.importance import IndependentChannelContributionHook

from mutants.good import Dense, changed_mixin
from mutants.registry import mutant


class EqualBatchesHook(IndependentChannelContributionHook):
    rows = None

    def observe(self, args, kwargs, output):
        self.rows = self.rows or len(args[0])
        assert len(args[0]) == self.rows, f"a batch of {len(args[0])}, expected {self.rows}"
        super().observe(args, kwargs, output)


@mutant("search.compress")
class HookExpectsEqualBatches(Dense):
    @hookimpl
    def pruning_mixins(self):
        supported = {"supported_hooks": lambda mixin: (EqualBatchesHook,)}
        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", **supported)

    @hookimpl
    def importance_hooks(self):
        return {"EqualBatchesHook": EqualBatchesHook}


class NoisyHook(IndependentChannelContributionHook):
    def scores(self):
        scores = super().scores()
        return scores * (1 + torch.rand(scores.shape))


@mutant("search.reproducible")
class BreaksTiesAtRandom(Dense):
    @hookimpl
    def pruning_mixins(self):
        supported = {"supported_hooks": lambda mixin: (NoisyHook,)}
        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", **supported)

    @hookimpl
    def importance_hooks(self):
        return {"NoisyHook": NoisyHook}
