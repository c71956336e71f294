"""Pruning a sparse family."""

from __future__ import annotations

import torch
from anyblock.contract.hookspecs import hookimpl

from mutants.good import Sparse, changed_mixin
from mutants.registry import mutant


@mutant("prune.sort")
class SortsExpertsAndNotTheRouter(Sparse):
    @hookimpl
    def pruning_mixins(self):
        def sort(mixin, layer_index, tensors, *rest):
            name = f"model.layers.{layer_index}.mlp.gate.weight"
            return {**mixin.sort(layer_index, tensors, *rest), name: tensors[name]}

        return changed_mixin(super().pruning_mixins(), "experts_removal", sort=sort)


@mutant("prune.masked-teacher")
class ScalesTheExpertsThatStay(Sparse):
    @hookimpl
    def pruning_mixins(self):
        def narrow(mixin, layer_index, tensors, *rest):
            narrowed = mixin.narrow(layer_index, tensors, *rest)
            return {name: 1.1 * tensor if "down_proj" in name else tensor for name, tensor in narrowed.items()}

        return changed_mixin(super().pruning_mixins(), "experts_removal", narrow=narrow)


@mutant("prune.masked-teacher")
class KeepsTheLastChannelsOfExperts(Sparse):
    @hookimpl
    def pruning_mixins(self):
        def narrow(mixin, layer_index, tensors, block, *rest):
            order = torch.arange(mixin.size(block)).flip(0)
            return mixin.narrow(layer_index, mixin.sort(layer_index, tensors, block, order, rest[-1]), block, *rest)

        return changed_mixin(super().pruning_mixins(), "expert_intermediate", narrow=narrow)
