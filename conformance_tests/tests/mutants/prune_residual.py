"""Pruning the residual stream of a dense family."""

from __future__ import annotations

import torch
from anyblock.contract.hookspecs import hookimpl

from mutants.good import Dense, changed_stream
from mutants.registry import mutant


@mutant("prune.residual-sizes")
class AcceptsAnyHiddenSize(Dense):
    @hookimpl
    def residual_stream(self):
        return changed_stream(super().residual_stream(), check_size=lambda stream, *_: None)


@mutant("prune.residual-shapes")
class NarrowsAllButTheHead(Dense):
    @hookimpl
    def residual_stream(self):
        def axes(stream, names):
            return stream.axes(name for name in names if name != "lm_head.weight")

        return changed_stream(super().residual_stream(), axes=axes)


@mutant("prune.residual-sort")
class SortsWeightsAndNotNorms(Dense):
    @hookimpl
    def residual_stream(self):
        def sort(stream, tensors, order):
            norms = {name: tensor for name, tensor in tensors.items() if "norm" in name}
            return {**stream.sort(tensors, order), **norms}

        return changed_stream(super().residual_stream(), sort=sort)


@mutant("prune.residual-sort")
class TakesTheOrderOfChannelsForRanks(Dense):
    @hookimpl
    def residual_stream(self):
        return changed_stream(
            super().residual_stream(), sort=lambda stream, tensors, order: stream.sort(tensors, order.argsort())
        )


@mutant("prune.residual-masked-teacher")
class KeepsTheLastChannels(Dense):
    @hookimpl
    def residual_stream(self):
        def narrow(stream, tensors, size):
            return stream.narrow(stream.sort(tensors, torch.arange(16).flip(0)), size)

        return changed_stream(super().residual_stream(), narrow=narrow)


@mutant("prune.residual-hook-targets")
class WatchesTheFfnForTheStream(Dense):
    @hookimpl
    def residual_stream(self):
        return changed_stream(super().residual_stream(), hook_target=lambda stream, *_: "mlp.gate_proj")


@mutant("prune.residual-costs")
class NarrowsOnlyRealStreams(Dense):
    @hookimpl
    def residual_stream(self):
        def narrow(stream, tensors, size):
            real = not any(tensor.is_meta for tensor in tensors.values())
            return stream.narrow(tensors, size) if real else dict(tensors)

        return changed_stream(super().residual_stream(), narrow=narrow)
