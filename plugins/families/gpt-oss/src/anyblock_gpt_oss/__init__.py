"""AnyBlock adapter for gpt-oss models (`model_type` gpt_oss)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, SparseDescriptor, stated_dtype

if TYPE_CHECKING:
    import torch
    from anyblock.contract.export_format import ExportFormat
    from transformers import GptOssConfig

__all__ = ["GptOssDescriptor"]


class GptOssDescriptor(SparseDescriptor):
    """gpt-oss 20b and 120b: experts with biases in every layer, a sink for every query head, every other layer windowed.

    Checkpoints in MXFP4 are converted to the model's own dtype, and a child can be exported as MXFP4 again.
    """

    decoder_layer = "transformers.models.gpt_oss.modeling_gpt_oss.GptOssDecoderLayer"
    ffn_returns = 2
    expert_width = "intermediate_size"
    router = "router"
    fused_experts = "interleaved"
    transposed_experts = True

    @hookimpl
    def dequantize(self, names: Sequence[str], config: Any) -> Mapping[str, Sequence[str]] | None:
        """See `FamilySpec.dequantize`: `W_blocks` and `W_scales` become `W`."""
        stems = [name.removesuffix("_blocks") for name in names if name.endswith("_blocks")]
        found = {stem: (f"{stem}_blocks", f"{stem}_scales") for stem in stems}
        return found or super().dequantize(names, config)

    @hookimpl
    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:
        """See `FamilySpec.dequantize_tensor`: transformers does it, a million blocks at a time."""
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        if f"{name}_blocks" not in sources:
            return super().dequantize_tensor(name, sources, config)
        options = {"rows_per_chunk": 1 << 20} | ({"dtype": dtype} if (dtype := stated_dtype(config)) else {})
        weights: torch.Tensor = convert_moe_packed_tensors(
            sources[f"{name}_blocks"], sources[f"{name}_scales"], **options
        )
        return weights

    @hookimpl
    def export_formats(self) -> Mapping[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        from anyblock_gpt_oss.export import Mxfp4Format

        return {"mxfp4": Mxfp4Format}

    @hookimpl
    def conformance_config(self) -> GptOssConfig:
        """See `FamilySpec.conformance_config`: one windowed layer among full ones; biases are always there."""
        from transformers import GptOssConfig

        kinds = ["full_attention", "sliding_attention", "full_attention"]
        changes = {"intermediate_size": 16, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
        return GptOssConfig(**{**TINY_SIZES, **changes}, sliding_window=7, layer_types=kinds)
