"""Pruning mixins: they turn scores and a target `BlockConfig` into a subblock's weights."""

from anyblock.pruning.ffn import FFNIntermediateLayerDescriptor, FFNIntermediatePruningMixIn
from anyblock.pruning.heads import KVHeadsLayerDescriptor, KVHeadsPruningMixIn, QueryGroupsPruningMixIn
from anyblock.pruning.layouts import dense_mixins
from anyblock.pruning.mixin import PruningMixIn
from anyblock.pruning.ordering import best_first

__all__ = [
    "FFNIntermediateLayerDescriptor",
    "FFNIntermediatePruningMixIn",
    "KVHeadsLayerDescriptor",
    "KVHeadsPruningMixIn",
    "PruningMixIn",
    "QueryGroupsPruningMixIn",
    "best_first",
    "dense_mixins",
]
