"""Pruning a dense family."""

from __future__ import annotations

import torch
from anyblock.contract.cache_spec import CacheSpec
from anyblock.contract.hookspecs import hookimpl
from anyblock.importance import IndependentChannelContributionHook, IndependentKvHeadContributionHook

from mutants.good import Dense, changed_mixin
from mutants.registry import mutant


def _biases(layer_index):
    return [f"model.layers.{layer_index}.mlp.{name}_proj.bias" for name in ("gate", "up")]


@mutant("prune.sizes")
class AcceptsAnyWidth(Dense):
    @hookimpl
    def pruning_mixins(self):
        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", check_size=lambda mixin, *_: None)


@mutant("prune.shapes")
class LeavesABiasWhole(Dense):
    @hookimpl
    def pruning_mixins(self):
        def narrow(mixin, layer_index, tensors, *rest):
            name = _biases(layer_index)[0]
            return {**mixin.narrow(layer_index, tensors, *rest), name: tensors[name]}

        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", narrow=narrow)


@mutant("prune.sort")
class SortsWeightsAndNotBiases(Dense):
    @hookimpl
    def pruning_mixins(self):
        def sort(mixin, layer_index, tensors, *rest):
            return {**mixin.sort(layer_index, tensors, *rest), **{name: tensors[name] for name in _biases(layer_index)}}

        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", sort=sort)


@mutant("prune.masked-teacher")
class KeepsTheLastHeads(Dense):
    @hookimpl
    def pruning_mixins(self):
        def narrow(mixin, layer_index, tensors, block, *rest):
            order = torch.arange(mixin.size(block)).flip(0)
            return mixin.narrow(layer_index, mixin.sort(layer_index, tensors, block, order, rest[-1]), block, *rest)

        return changed_mixin(super().pruning_mixins(), "query_groups", narrow=narrow)


@mutant("prune.masked-teacher")
class GivesHeadsTheWrongQueries(Dense):
    @hookimpl
    def pruning_mixins(self):
        def narrow(mixin, layer_index, tensors, *rest):
            name = f"model.layers.{layer_index}.self_attn.q_proj.weight"
            narrowed = mixin.narrow(layer_index, tensors, *rest)
            return {**narrowed, name: narrowed[name].roll(4, dims=0)}

        return changed_mixin(super().pruning_mixins(), "kv_heads", narrow=narrow)


@mutant("prune.mixed-child")
class OverridesOneHalfAtATime(Dense):
    @hookimpl
    def block_config_to_layer_overrides(self, block_config):
        overrides = super().block_config_to_layer_overrides(block_config)
        width = overrides.get("intermediate_size", 24)
        return {"intermediate_size": width} if width != 24 else overrides


@mutant("prune.hook-targets")
class HookIsNotRegistered(Dense):
    @hookimpl
    def pruning_mixins(self):
        class OwnHook(IndependentKvHeadContributionHook):
            pass

        return changed_mixin(super().pruning_mixins(), "kv_heads", supported_hooks=lambda mixin: (OwnHook,))


@mutant("prune.hook-targets")
class WatchesTheWrongModule(Dense):
    @hookimpl
    def pruning_mixins(self):
        return changed_mixin(
            super().pruning_mixins(), "ffn_intermediate", hook_target=lambda mixin, *_: "mlp.gate_proj"
        )


@mutant("prune.kept-units")
class TakesTheOrderForRanks(Dense):
    @hookimpl
    def pruning_mixins(self):
        def sort(mixin, layer_index, tensors, block, order, config):
            return mixin.sort(layer_index, tensors, block, order.argsort(), config)

        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", sort=sort)


class UpsideDownHook(IndependentChannelContributionHook):
    def scores(self):
        return -super().scores()


@mutant("prune.kept-units")
class RanksUpsideDown(Dense):
    @hookimpl
    def pruning_mixins(self):
        supported = {"supported_hooks": lambda mixin: (UpsideDownHook,)}
        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", **supported)

    @hookimpl
    def importance_hooks(self):
        return {"UpsideDownHook": UpsideDownHook}


@mutant("prune.costs")
class NarrowsOnlyRealTensors(Dense):
    @hookimpl
    def pruning_mixins(self):
        def narrow(mixin, layer_index, tensors, *rest):
            if any(tensor.is_meta for tensor in tensors.values()):
                return dict(tensors)
            return mixin.narrow(layer_index, tensors, *rest)

        return changed_mixin(super().pruning_mixins(), "ffn_intermediate", narrow=narrow)


@mutant("prune.cache-costs")
class CountsQueryHeadsInTheCache(Dense):
    @hookimpl
    def cache_spec(self, config, block_config, layer_index):
        own = super().cache_spec(config, block_config, layer_index)
        return CacheSpec(per_token=own.per_token and 2 * config.hidden_size)


@mutant("prune.cache-costs")
class CacheIgnoresTheChildsHeads(Dense):
    @hookimpl
    def cache_spec(self, config, block_config, layer_index):
        return super().cache_spec(config, block_config.with_attention(num_key_value_heads=2), layer_index)
