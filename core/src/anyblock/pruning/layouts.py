"""Ready-made sets of pruning mixins for the common layouts; a family takes what fits and changes what differs."""

from __future__ import annotations

from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.pruning.expert_channels import ExpertIntermediateLayerDescriptor, ExpertIntermediatePruningMixIn
from anyblock.pruning.experts import ExpertRemovalLayerDescriptor, ExpertRemovalPruningMixIn
from anyblock.pruning.ffn import FFNIntermediateLayerDescriptor, FFNIntermediatePruningMixIn, GateUp
from anyblock.pruning.heads import KVHeadsLayerDescriptor, KVHeadsPruningMixIn, QueryGroupsPruningMixIn
from anyblock.pruning.latent import LatentHeadsLayerDescriptor, LatentHeadsPruningMixIn
from anyblock.pruning.mamba import MambaHeadsLayerDescriptor, MambaHeadsPruningMixIn

LAYER = "model.layers.{layer_idx}"
GATED = ("gate_proj", "up_proj", "down_proj")


def dense_mixins(layer: str = LAYER, attention: str = "self_attn", ffn: str = "mlp") -> dict[str, PruningMixIn]:
    """Return the mixins of a dense decoder with `{q,k,v,o}_proj` and `{gate,up,down}_proj`.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        attention: name of the attention module inside the layer.
        ffn: name of the FFN module inside the layer.
    """
    return {**attention_mixins(layer, attention), **ffn_mixins(layer, ffn)}


def attention_mixins(
    layer: str = LAYER,
    attention: str = "self_attn",
    *,
    linears: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    module: str | None = None,
    query_row_multiple: int = 1,
    gates: tuple[str, ...] = (),
    head_rows: tuple[str, ...] = ("sinks",),
) -> dict[str, PruningMixIn]:
    """Return `kv_heads` and `query_groups`.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        attention: name of the attention in the checkpoint, inside the layer.
        linears: query, key, value and output projection; two names where the first holds query, key and value.
        module: name of the attention in the model, where it differs.
        query_row_multiple: see `KVHeadsLayerDescriptor`.
        gates: linear modules that gate what the heads return, width by width.
        head_rows: tensors with one row for each query head.
    """
    descriptor = KVHeadsLayerDescriptor(
        o_proj_name=f"{module or attention}.{linears[-1]}",
        attn_prefix_name=f"{layer}.{attention}",
        qkvo_weight_names=linears,
        gate_names=gates,
        head_row_names=head_rows,
        query_row_multiple=query_row_multiple,
    )
    return _by_kind(KVHeadsPruningMixIn(descriptor), QueryGroupsPruningMixIn(descriptor))


def ffn_mixins(
    layer: str = LAYER,
    ffn: str = "mlp",
    *,
    linears: tuple[str, ...] = GATED,
    fused_gate_up: GateUp | None = None,
    transposed: bool = False,
    module: str | None = None,
) -> dict[str, PruningMixIn]:
    """Return `ffn_intermediate`.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        ffn: name of the FFN module inside the layer; empty where its linear modules lie in the layer itself.
        linears: the input projections and, last, the output projection.
        fused_gate_up: see `FFNIntermediateLayerDescriptor`.
        transposed: see `FFNIntermediateLayerDescriptor`.
        module: name of the FFN in the model, where it differs.
    """
    descriptor = FFNIntermediateLayerDescriptor(
        down_proj_name=f"{ffn if module is None else module}.{linears[-1]}".removeprefix("."),
        ffn_prefix_name=f"{layer}.{ffn}".removesuffix("."),
        linear_weight_names=linears,
        fused_gate_up=fused_gate_up,
        transposed=transposed,
    )
    return _by_kind(FFNIntermediatePruningMixIn(descriptor))


def sparse_mixins(
    layer: str = LAYER,
    moe: str = "mlp",
    *,
    router: str = "gate",
    linears: tuple[str, ...] = GATED,
    correction_bias: bool | str = False,
    groups: str | None = None,
    shared_is_multiple: bool = False,
    module: str | None = None,
    module_router: str | None = None,
) -> dict[str, PruningMixIn]:
    """Return `experts_removal` and `expert_intermediate` of a checkpoint with tensors for each expert.

    That is `{moe}.{router}.weight` and `{moe}.experts.N.{linear}.weight`; shared experts are left alone.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        moe: name of the sparse FFN in the checkpoint, inside the layer.
        router: name of the router inside that.
        linears: an expert's input projections and, last, its output projection.
        correction_bias: whether the router has an `e_score_correction_bias`, or the bias' name below the sparse FFN.
        groups: the configuration's number of expert groups, such as `n_group`, among which the router chooses first.
        shared_is_multiple: see `ExpertIntermediateLayerDescriptor`.
        module: name of the sparse FFN in the model, where it differs.
        module_router: name of the router in the model, where it differs.
    """
    prefix, owner = f"{layer}.{moe}", module or moe
    weights = tuple(f"{linear}.weight" for linear in linears)
    bias = correction_bias if isinstance(correction_bias, str) else f"{router}.e_score_correction_bias"
    removal = ExpertRemovalLayerDescriptor(
        target_name=f"{owner}.{module_router or router}",
        sparse_name=owner if "." in (module_router or router) else "",
        moe_prefix_name=prefix,
        router_weights=(f"{router}.weight",),
        router_biases=(bias,) if correction_bias else (),
        expert_weights=weights,
        groups_attribute=groups,
    )
    channels = ExpertIntermediateLayerDescriptor(
        target_name=f"{owner}.experts",
        moe_prefix_name=prefix,
        input_weights=weights[:-1],
        output_weights=weights[-1:],
        input_biases=tuple(f"{linear}.bias" for linear in linears[:-1]),
        shared_is_multiple=shared_is_multiple,
    )
    return _by_kind(ExpertRemovalPruningMixIn(removal), ExpertIntermediatePruningMixIn(channels))


def fused_sparse_mixins(
    layer: str = LAYER,
    moe: str = "mlp",
    *,
    router: str = "gate",
    tensors: tuple[str, str] = ("experts.gate_up_proj", "experts.down_proj"),
    gate_up: GateUp | None = "halves",
    transposed: bool = False,
    correction_bias: str | None = None,
    shared_is_multiple: bool = False,
    module: str | None = None,
    module_router: str | None = None,
) -> dict[str, PruningMixIn]:
    """Return `experts_removal` and `expert_intermediate` of a checkpoint whose experts share their tensors.

    That is `{moe}.{router}.weight`, `{moe}.experts.gate_up_proj` and `{moe}.experts.down_proj`, with biases or without.
    In the model the experts are `{moe}.experts`.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        moe: name of the sparse FFN inside the layer.
        router: name of the router inside that.
        tensors: names of the experts' two tensors inside that.
        gate_up: how the first of them holds gate and up; None where it holds one projection.
        transposed: whether the tensors are `[experts, in, out]`; otherwise they are `[experts, out, in]`.
        correction_bias: name, inside the sparse FFN, of a bias that the router adds before it chooses.
        shared_is_multiple: see `ExpertIntermediateLayerDescriptor`.
        module: name of the sparse FFN in the model, where it differs.
        module_router: name of the router in the model, where it differs.
    """
    prefix, owner = f"{layer}.{moe}", module or moe
    inputs, outputs = tensors
    removal = ExpertRemovalLayerDescriptor(
        target_name=f"{owner}.{module_router or router}",
        sparse_name=owner if "." in (module_router or router) else "",
        moe_prefix_name=prefix,
        router_weights=(f"{router}.weight",),
        router_biases=(f"{router}.bias", *([correction_bias] if correction_bias else [])),
        is_fused_experts=True,
        fused_expert_weights=tensors,
        fused_expert_biases=(f"{inputs}_bias", f"{outputs}_bias"),
    )
    channels = ExpertIntermediateLayerDescriptor(
        target_name=f"{owner}.experts",
        moe_prefix_name=prefix,
        is_fused_experts=True,
        input_weights=(inputs,),
        output_weights=(outputs,),
        input_biases=(f"{inputs}_bias",),
        fused_gate_up=gate_up,
        transposed=transposed,
        shared_is_multiple=shared_is_multiple,
    )
    return _by_kind(ExpertRemovalPruningMixIn(removal), ExpertIntermediatePruningMixIn(channels))


def latent_attention_mixins(layer: str = LAYER, attention: str = "self_attn") -> dict[str, PruningMixIn]:
    """Return `query_groups` of a latent attention with the names that it has in DeepSeek's models.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        attention: name of the attention inside the layer.
    """
    descriptor = LatentHeadsLayerDescriptor(o_proj_name=f"{attention}.o_proj", attn_prefix_name=f"{layer}.{attention}")
    return _by_kind(LatentHeadsPruningMixIn(descriptor))


def mamba_mixins(layer: str = LAYER, mixer: str = "mixer", *, groups: str = "n_groups") -> dict[str, PruningMixIn]:
    """Return `mamba_heads` of a Mamba-2 mixer with the names that it has in transformers.

    Args:
        layer: checkpoint prefix of one layer, with `{layer_idx}`.
        mixer: name of the mixer inside the layer.
        groups: the configuration's number of groups of heads that share B and C.
    """
    descriptor = MambaHeadsLayerDescriptor(
        out_proj_name=f"{mixer}.out_proj", mixer_prefix_name=f"{layer}.{mixer}", groups_attribute=groups
    )
    return _by_kind(MambaHeadsPruningMixIn(descriptor))


def _by_kind(*mixins: PruningMixIn) -> dict[str, PruningMixIn]:
    return {mixin.kind: mixin for mixin in mixins}
