"""The base for sparse decoders: attention as in dense ones, and an FFN of routed experts in all or some layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.blocks import BlockConfig, FFNConfig, MoEConfig
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.dense import DenseDescriptor

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.pruning.ffn import GateUp


class SparseDescriptor(DenseDescriptor):
    """Hooks for a decoder whose checkpoint has `mlp.gate.weight` and `mlp.experts.N.{gate,up,down}_proj.weight`.

    Or, with `fused_experts`, `mlp.experts.gate_up_proj` and `mlp.experts.down_proj`, which all experts of a layer share.

    Class attributes beyond those of `DenseDescriptor`, whose `ffn_linears` are those of dense layers among sparse ones:
        experts, experts_per_token, expert_width: the config's attributes with an expert layer's sizes, by their own
            names and not by aliases.
        dense_layers: the config's attribute with the indices of dense layers, perhaps None; None where there is none.
        sparse_step: the config's attribute that says that every so-many-th layer has experts; None where all have.
        router: the router's name inside the ffn.
        expert_linears: an expert's input projections and, last, its output projection, in checkpoint names.
        fused_experts: how the shared tensor holds gate and up; None where every expert has tensors of its own.
        transposed_experts: whether the shared tensors are `[experts, in, out]`; otherwise they are `[experts, out, in]`.
        shared_width: the config's attribute with the width of the shared expert; None without one of its own width.
        correction_bias: whether the router has an `e_score_correction_bias`.
        expert_groups: the config's number of expert groups among which the router chooses first; None without groups.
        shared_is_multiple: whether the model builds its shared expert as a whole number of routed experts.
    """

    experts: ClassVar[str] = "num_local_experts"
    experts_per_token: ClassVar[str] = "num_experts_per_tok"
    expert_width: ClassVar[str] = "moe_intermediate_size"
    dense_layers: ClassVar[str | None] = None
    sparse_step: ClassVar[str | None] = None
    router: ClassVar[str] = "gate"
    expert_linears: ClassVar[tuple[str, ...]] = ("gate_proj", "up_proj", "down_proj")
    fused_experts: ClassVar[GateUp | None] = None
    transposed_experts: ClassVar[bool] = False
    shared_width: ClassVar[str | None] = None
    correction_bias: ClassVar[bool] = False
    expert_groups: ClassVar[str | None] = None
    shared_is_multiple: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = (
        "experts_removal",
        "expert_intermediate",
        "kv_heads",
        "query_groups",
        "hidden_size",
    )

    def is_sparse(self, text_config: Any, layer_index: int) -> bool:
        """Say whether a layer of the unpruned model has experts."""
        dense = (getattr(text_config, self.dense_layers) or ()) if self.dense_layers else ()
        step = getattr(text_config, self.sparse_step) if self.sparse_step else 1
        return layer_index not in dense and (layer_index + 1) % step == 0

    def ffn_config(self, text_config: Any, layer_index: int) -> FFNConfig:
        """See `DenseDescriptor.ffn_config`."""
        if not self.is_sparse(text_config, layer_index):
            return super().ffn_config(text_config, layer_index)
        return FFNConfig(moe=self.moe_config(text_config))

    def moe_config(self, text_config: Any) -> MoEConfig:
        """Return the sizes of a sparse layer of the unpruned model."""
        return MoEConfig(
            num_local_experts=getattr(text_config, self.experts),
            num_experts_per_tok=getattr(text_config, self.experts_per_token),
            expert_intermediate_dim=getattr(text_config, self.expert_width),
            shared_expert_intermediate_dim=getattr(text_config, self.shared_width) if self.shared_width else None,
        )

    @hookimpl
    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> Mapping[str, Any]:
        """See `FamilySpec.block_config_to_layer_overrides`."""
        values = dict(super().block_config_to_layer_overrides(block_config))
        if moe := block_config.ffn.moe:
            values[self.experts] = moe.num_local_experts
            values[self.experts_per_token] = moe.num_experts_per_tok
            values[self.expert_width] = moe.expert_intermediate_dim
            if self.shared_width and moe.shared_expert_intermediate_dim:
                values[self.shared_width] = moe.shared_expert_intermediate_dim
        return values

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DenseDescriptor.layout_mixins`."""
        return {**super().layout_mixins(), **self.expert_mixins()}

    def expert_mixins(self) -> dict[str, PruningMixIn]:
        """Return `experts_removal` and `expert_intermediate`."""
        from anyblock.pruning.layouts import fused_sparse_mixins, sparse_mixins

        if self.fused_experts is not None:
            return fused_sparse_mixins(
                self.checkpoint_layer,
                self.stored_ffn,
                router=self.router,
                gate_up=self.fused_experts,
                transposed=self.transposed_experts,
            )
        return sparse_mixins(
            self.checkpoint_layer,
            self.stored_ffn,
            router=self.router,
            linears=self.expert_linears,
            correction_bias=self.correction_bias,
            groups=self.expert_groups,
            shared_is_multiple=self.shared_is_multiple,
            module=self.ffn,
        )

    def stream_linears(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See `DenseDescriptor.stream_linears`."""
        readers, writers = super().stream_linears()
        *inputs, output = self.expert_linears
        return (*readers, *inputs, self.router), (*writers, output)

    def fused_stream_tensors(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """See `DenseDescriptor.fused_stream_tensors`."""
        if self.fused_experts is None:
            return {}, {}
        rows, columns = (2, 1) if self.transposed_experts else (1, 2)
        return {"experts.gate_up_proj": columns}, {"experts.down_proj": rows, "experts.down_proj_bias": 1}
