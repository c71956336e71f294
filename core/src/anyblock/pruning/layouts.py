"""Ready-made sets of pruning mixins for the common layouts."""

from __future__ import annotations

from anyblock.pruning.ffn import FFNIntermediateLayerDescriptor, FFNIntermediatePruningMixIn
from anyblock.pruning.heads import KVHeadsLayerDescriptor, KVHeadsPruningMixIn, QueryGroupsPruningMixIn
from anyblock.pruning.mixin import PruningMixIn


def dense_mixins(
    layer: str = "model.layers.{layer_idx}", attention: str = "self_attn", ffn: str = "mlp"
) -> dict[str, PruningMixIn]:
    """Return the mixins of a dense decoder with `{q,k,v,o}_proj` and `{gate,up,down}_proj`.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        attention: name of the attention module inside the layer.
        ffn: name of the FFN module inside the layer.
    """
    heads = KVHeadsLayerDescriptor(o_proj_name=f"{attention}.o_proj", attn_prefix_name=f"{layer}.{attention}")
    channels = FFNIntermediateLayerDescriptor(down_proj_name=f"{ffn}.down_proj", ffn_prefix_name=f"{layer}.{ffn}")
    return {
        mixin.kind: mixin
        for mixin in (
            FFNIntermediatePruningMixIn(channels),
            KVHeadsPruningMixIn(heads),
            QueryGroupsPruningMixIn(heads),
        )
    }
