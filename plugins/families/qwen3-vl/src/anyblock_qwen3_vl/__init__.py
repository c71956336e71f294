"""AnyBlock adapters for Qwen3-VL models (`model_type` qwen3_vl, qwen3_vl_moe)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, DenseDescriptor, SparseDescriptor
from anyblock.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from anyblock.contract.importance_hook import ImportanceHook
    from transformers import Qwen3VLConfig, Qwen3VLMoeConfig

__all__ = ["Qwen3VLDescriptor", "Qwen3VLMoeDescriptor"]

_TEXT: Final[dict[str, Any]] = {
    **TINY_SIZES,
    "head_dim": 8,
    "attention_bias": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}
_TINY: Final[dict[str, Any]] = {
    "vision_config": {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "patch_size": 4,
        "deepstack_visual_indexes": [0, 1],
    },
    "image_token_id": 124,
    "video_token_id": 125,
    "vision_start_token_id": 126,
    "vision_end_token_id": 127,
}


class Qwen3VLDescriptor(DenseDescriptor):
    """Qwen3-VL 2B to 32B: only the language model is compressed, and what sees images is kept as it is.

    Features of the vision tower are added after the first layers of the language model; no layer is ever taken out of the
    model, so they stay where they belong.
    """

    decoder_layer = "transformers.models.qwen3_vl.modeling_qwen3_vl.Qwen3VLTextDecoderLayer"
    decoder_prefix = "model.language_model"
    text_config = "text_config"
    extra_groups: ClassVar[Mapping[str, str]] = {"vision_encoding": r"model\.visual\..+"}
    not_implemented = ("hidden_size",)  # the vision tower writes into the residual stream

    @hookimpl
    def conformance_config(self) -> Qwen3VLConfig:
        """See `FamilySpec.conformance_config`: a vision tower of two layers, both of which write into the decoder."""
        from transformers import Qwen3VLConfig

        return Qwen3VLConfig(text_config=_TEXT, **_TINY)


class Qwen3VLMoeDescriptor(SparseDescriptor):
    """Qwen3-VL 30B-A3B and 235B-A22B: the same with experts, which are fused in the checkpoint.

    Published files hold the experts' weights as `[experts, in, out]`, those that transformers 5 writes as
    `[experts, out, in]`, which is also the model's own form. A converted checkpoint has the latter.
    """

    decoder_layer = "transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe.Qwen3VLMoeTextDecoderLayer"
    decoder_prefix = Qwen3VLDescriptor.decoder_prefix
    text_config = Qwen3VLDescriptor.text_config
    extra_groups = Qwen3VLDescriptor.extra_groups
    dense_layers, sparse_step = "mlp_only_layers", "decoder_sparse_step"
    fused_experts = "halves"
    not_implemented = Qwen3VLDescriptor.not_implemented

    @hookimpl
    def dequantize(self, names: Sequence[str], config: Any) -> Mapping[str, Sequence[str]] | None:
        """See `FamilySpec.dequantize`: all experts' weights, for a name does not tell how they lie."""
        gate_up, down = ".mlp.experts.gate_up_proj", ".mlp.experts.down_proj"
        known = set(names)
        found = {name: (name, name.replace(gate_up, down)) for name in names if name.endswith(gate_up)}
        found |= {name: (name, name.replace(down, gate_up)) for name in names if name.endswith(down)}
        whole = {name: sources for name, sources in found.items() if known.issuperset(sources)}
        return whole or super().dequantize(names, config)

    @hookimpl
    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:
        """See `FamilySpec.dequantize_tensor`: turned round where inputs come before outputs.

        Raises:
            CheckpointError: neither of the layer's two tensors tells which way they lie.
        """
        if not name.endswith(("gate_up_proj", "down_proj")):
            return super().dequantize_tensor(name, sources, config)
        hidden = config.text_config.hidden_size
        # Both lie the same way; one whose inputs and outputs are equally many does not tell which.
        for source, tensor in sources.items():
            first, last = tensor.shape[1:]
            if (first == hidden) != (last == hidden):
                as_it_is = (last == hidden) == source.endswith("gate_up_proj")
                return sources[name] if as_it_is else sources[name].transpose(1, 2)
        raise CheckpointError(
            f"{name} has the shape {list(sources[name].shape)}",
            expected=f"a tensor with {hidden} inputs or outputs, and another number of the other",
        )

    @hookimpl
    def importance_hooks(self) -> Mapping[str, type[ImportanceHook]]:
        """See `FamilySpec.importance_hooks`."""
        from anyblock_qwen3_vl.experts import Qwen3VLRemoveExpertsIndependentHook

        return {"Qwen3VLRemoveExpertsIndependentHook": Qwen3VLRemoveExpertsIndependentHook}

    @hookimpl
    def conformance_config(self) -> Qwen3VLMoeConfig:
        """See `FamilySpec.conformance_config`: the first layer is dense."""
        from transformers import Qwen3VLMoeConfig

        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "mlp_only_layers": [0]}
        return Qwen3VLMoeConfig(text_config=_TEXT | experts, **_TINY)
