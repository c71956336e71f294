"""Block configs and overrides."""

from __future__ import annotations

from anyblock.contract.hookspecs import hookimpl

from mutants.good import Dense
from mutants.registry import mutant


@mutant("structure.block-configs")
class DoublesTheFFNWidth(Dense):
    @hookimpl
    def create_block_configs(self, config):
        blocks = super().create_block_configs(config)
        return [block.with_ffn(intermediate_size=2 * block.ffn.intermediate_size) for block in blocks]


@mutant("structure.block-configs")
class MistakesTheLastLayersWidth(Dense):
    @hookimpl
    def create_block_configs(self, config):
        *blocks, last = super().create_block_configs(config)
        return [*blocks, last.with_ffn(intermediate_size=last.ffn.intermediate_size - 4)]


@mutant("structure.overrides")
class OverridesIgnoreTheFFNWidth(Dense):
    @hookimpl
    def block_config_to_layer_overrides(self, block_config):
        overrides = super().block_config_to_layer_overrides(block_config)
        return {name: value for name, value in overrides.items() if name != "intermediate_size"}


@mutant("structure.overrides")
class OverrideReachesTheOtherHalf(Dense):
    @hookimpl
    def block_config_to_layer_overrides(self, block_config):
        overrides = super().block_config_to_layer_overrides(block_config)
        narrower = overrides.get("intermediate_size", 24) < 24
        return {**overrides, "attention_bias": False} if narrower else overrides
