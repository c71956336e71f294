"""AnyBlock adapter for Mixtral models (`model_type` mixtral)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, SparseDescriptor

if TYPE_CHECKING:
    from transformers import MixtralConfig

__all__ = ["MixtralDescriptor"]


class MixtralDescriptor(SparseDescriptor):
    """Mixtral 8x7B and 8x22B: files keep the names that the model had before transformers 5."""

    decoder_layer = "transformers.models.mixtral.modeling_mixtral.MixtralDecoderLayer"
    checkpoint_ffn = "block_sparse_moe"
    expert_width = "intermediate_size"
    expert_linears = ("w1", "w3", "w2")

    @hookimpl
    def conformance_config(self) -> MixtralConfig:
        """See `FamilySpec.conformance_config`: heads are wider than hidden size over heads, and the window is short."""
        from transformers import MixtralConfig

        return MixtralConfig(**TINY_SIZES, head_dim=16, sliding_window=7, num_local_experts=4, num_experts_per_tok=2)
