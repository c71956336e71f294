"""Conversion."""

from __future__ import annotations

from anyblock.contract.hookspecs import hookimpl

from mutants.good import Dense
from mutants.registry import mutant


@mutant("convert.bit-for-bit")
class ComputesTheNormInHalfPrecision(Dense):
    @hookimpl
    def dequantize(self, names):
        return {"model.norm.weight": ("model.norm.weight",)}

    @hookimpl
    def dequantize_tensor(self, name, sources):
        return sources[name].bfloat16().float()


@mutant("convert.flat-memory")
class ComputesWhatCouldBeCopied(Dense):
    @hookimpl
    def dequantize(self, names):
        return {name: (name,) for name in names}

    @hookimpl
    def dequantize_tensor(self, name, sources):
        return sources[name].clone()
