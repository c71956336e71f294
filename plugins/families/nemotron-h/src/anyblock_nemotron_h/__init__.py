"""AnyBlock adapter for Nemotron-H models (`model_type` nemotron_h)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import TINY_SIZES, HybridDescriptor, Size

if TYPE_CHECKING:
    from anyblock.contract.importance_hook import ImportanceHook
    from anyblock.descriptors.hybrid import Mixer
    from transformers import NemotronHConfig

__all__ = ["NemotronHDescriptor"]


class NemotronHDescriptor(HybridDescriptor):
    """Nemotron-H, Nemotron Nano 2 and Nemotron 3: Mamba, attention, dense and expert layers in any order.

    A config names the order as a pattern of `M`, `*`, `-` and `E`, or as a list. FFN and experts have no gate.
    """

    decoder_layer = "transformers.models.nemotron_h.modeling_nemotron_h.NemotronHBlock"
    checkpoint_prefix = "backbone"
    embedding, final_norm = "embeddings", "norm_f"
    extra_groups: ClassVar[Mapping[str, str]] = {"multi_token_prediction": r"mtp\..+"}
    mixers: ClassVar[Mapping[str, Mixer]] = {
        "linear_attention": "mamba",
        "mamba": "mamba",
        "full_attention": "attention",
        "attention": "attention",
        "mlp": "dense",
        "moe": "experts",
    }
    attention_by = ffn_by = "layers_block_type"
    layer_type = "block_type"
    mamba_sizes: ClassVar[Mapping[str, Size]] = {
        "state_dim": Size("ssm_state_size"),
        "num_heads": Size("mamba_num_heads"),
        "head_dim": Size("mamba_head_dim"),
        "num_groups": Size("n_groups"),
    }
    ffn_linears = expert_linears = ("up_proj", "down_proj")
    experts = "n_routed_experts"
    shared_width = "moe_shared_expert_intermediate_size"
    correction_bias = True
    expert_groups = "n_group"
    not_implemented = ("hidden_size",)

    @hookimpl
    def convert_weight_name(self, name: str) -> str:
        """See `FamilySpec.convert_weight_name`: experts under the prefix of some published checkpoints, `model.`."""
        return re.sub(r"^model(?=\.layers\.\d+\.mixer\.experts\.\d+\.)", "backbone", name)

    @hookimpl
    def importance_hooks(self) -> Mapping[str, type[ImportanceHook]]:
        """See `FamilySpec.importance_hooks`."""
        from anyblock_nemotron_h.experts import NemotronHRemoveExpertsIndependentHook

        return {"NemotronHRemoveExpertsIndependentHook": NemotronHRemoveExpertsIndependentHook}

    @hookimpl
    def conformance_config(self) -> NemotronHConfig:
        """See `FamilySpec.conformance_config`: a layer of every kind, two groups of experts in a latent space, and biases."""
        from transformers import NemotronHConfig

        sizes = {name: size for name, size in TINY_SIZES.items() if name != "num_hidden_layers"}
        mamba = {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 8}
        # The norm over a Mamba's heads weighs its epsilon the more the fewer they are: none to speak of here.
        options = {"use_bias": True, "mlp_bias": True, "layer_norm_epsilon": 1e-9}
        experts = {
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "moe_shared_expert_intermediate_size": 24,
            "moe_latent_size": 24,
        }
        kinds = ["linear_attention", "moe", "full_attention", "mlp"]
        return NemotronHConfig(**sizes, **mamba, **experts, **options, head_dim=8, layers_block_type=kinds)
