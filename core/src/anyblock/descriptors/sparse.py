"""The base for sparse decoders: attention as in dense ones, and an FFN of routed experts in all or some layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from anyblock.descriptors.dense import DenseDescriptor
from anyblock.descriptors.layout import HalfLayout, Size

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn


class SparseDescriptor(DenseDescriptor, declares=True):
    """Hooks for a decoder whose checkpoint has `mlp.gate.weight` and `mlp.experts.N.{gate,up,down}_proj.weight`.

    Or, with `fused_experts`, `mlp.experts.gate_up_proj` and `mlp.experts.down_proj`, which all experts of a layer share.

    Class attributes beyond those of `DenseDescriptor`, whose `ffn_sizes` and `ffn_linears` are those of dense layers among
    sparse ones:
        experts, experts_per_token, expert_width: the config's attributes with an expert layer's sizes, by their own
            names and not by aliases.
        shared_width: the config's attribute with the width of the shared expert; None without one of its own width.
        shared_experts: the config's number of routed experts as wide as which the shared one is built; None where it is not.
        dense_layers: the config's attribute with the indices of dense layers, or with how many of the first ones are dense;
            None where there is none.
        sparse_step: the config's attribute that says that every so-many-th layer has experts; None where all have.
        router: the router's name inside the ffn.
        expert_linears: an expert's input projections and, last, its output projection, in checkpoint names.
        fused_experts: how the shared tensor holds gate and up; None where every expert has tensors of its own.
        transposed_experts: whether the shared tensors are `[experts, in, out]`; otherwise they are `[experts, out, in]`.
        correction_bias: whether the router has an `e_score_correction_bias`, or that bias' name inside the ffn.
        expert_groups: the config's number of expert groups among which the router chooses first; None without groups.
    """

    experts: ClassVar[str] = "num_local_experts"
    experts_per_token: ClassVar[str] = "num_experts_per_tok"
    expert_width: ClassVar[str] = "moe_intermediate_size"
    shared_width: ClassVar[str | None] = None
    shared_experts: ClassVar[str | None] = None
    dense_layers: ClassVar[str | None] = None
    sparse_step: ClassVar[str | None] = None
    router: ClassVar[str] = "gate"
    expert_linears: ClassVar[tuple[str, ...]] = ("gate_proj", "up_proj", "down_proj")
    fused_experts: ClassVar[Literal["halves", "interleaved"] | None] = None
    transposed_experts: ClassVar[bool] = False
    correction_bias: ClassVar[bool | str] = False
    expert_groups: ClassVar[str | None] = None
    stream_multiple: ClassVar[int] = 8  # grouped products of experts take rows of whole 16 bytes only

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`."""
        if half == "attention":
            return super().half_kinds(half)
        dense = {"dense": self.ffn_layout(self.ffn_sizes)} if self.dense_layers or self.sparse_step else {}
        return {"experts": self.ffn_layout(self.expert_sizes()), **dense}

    def expert_sizes(self) -> Mapping[str, Size]:
        """Return where the sizes of a layer with experts come from."""
        sizes = {
            "num_local_experts": Size(self.experts),
            "num_experts_per_tok": Size(self.experts_per_token),
            "expert_intermediate_dim": Size(self.expert_width),
        }
        if self.shared_width:
            sizes["shared_expert_intermediate_dim"] = Size(self.shared_width)
        elif self.shared_experts:
            sizes["shared_expert_intermediate_dim"] = Size(self.expert_width, times=self.shared_experts)
        return sizes

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """See `DescriptorBase.kinds_of`: layers are dense by their places."""
        if half == "attention" or not (self.dense_layers or self.sparse_step):
            return super().kinds_of(config, half)
        kinds, text = self.half_kinds(half), self.language_model_config(config)
        dense = (getattr(text, self.dense_layers) or ()) if self.dense_layers else ()
        dense = range(dense) if isinstance(dense, int) else dense
        step = getattr(text, self.sparse_step) if self.sparse_step else 1
        sparse = [index not in dense and (index + 1) % step == 0 for index in range(getattr(text, self.layer_count))]
        return [kinds["experts" if own else "dense"] for own in sparse]

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`."""
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
            shared_is_multiple=self.shared_experts is not None,
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
