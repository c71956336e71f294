"""Nemotron-H in the terms of llama.cpp, which gives every layer sizes of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock_gguf.architecture import Architecture, add_experts

if TYPE_CHECKING:
    import torch
    from anyblock.contract.blocks import BlockConfig


class NemotronH(Architecture):
    """Layers of one mixer each: Mamba, attention, or an FFN without a gate."""

    name = "nemotron_h"
    biases: ClassVar[Sequence[str]] = (
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ssm_conv1d",
        "ssm_dt",
        "ffn_up",
        "ffn_down",
    )

    def __init__(self, configs: Sequence[Any], places: Sequence[int], blocks: Sequence[BlockConfig]) -> None:
        super().__init__(configs, places, blocks)
        self.kinds = [self.config.layers_block_type[place] for place in places]

    def obstacles(self) -> list[str]:
        """See `Architecture.obstacles`."""
        config = self.config
        found = []
        if config.mlp_hidden_act != "relu2":
            found.append(f"its activation is {config.mlp_hidden_act}, not relu2")
        if config.mamba_hidden_act != "silu":
            found.append(f"its Mamba's activation is {config.mamba_hidden_act}, not silu")
        return found

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`: no key-value heads and no width say that a layer is a Mamba."""
        config = self.of("linear_attention", "mamba")
        attends = [kind in ("full_attention", "attention") for kind in self.kinds]
        writer.add_block_count(len(self.places))
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_vocab_size(config.vocab_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        sized = list(zip(self.configs, attends, self.kinds, strict=True))
        writer.add_head_count(self.of("full_attention", "attention").num_attention_heads)
        writer.add_head_count_kv([own.num_key_value_heads if attention else 0 for own, attention, _ in sized])
        writer.add_feed_forward_length([self.width(own, kind) for own, _, kind in sized])
        writer.add_ssm_conv_kernel(config.conv_kernel)
        writer.add_ssm_inner_size(config.mamba_num_heads * config.mamba_head_dim)
        writer.add_ssm_state_size(config.ssm_state_size)
        writer.add_ssm_time_step_rank(config.mamba_num_heads)
        writer.add_ssm_group_count(config.n_groups)

    def uneven(self, differences: Sequence[Mapping[str, Any]]) -> list[str]:
        """See `Architecture.uneven`: this one has no experts."""
        experts = ["it has experts"] if "moe" in self.kinds and "ffn_down" in self.biases else []
        return experts + super().uneven(differences)

    def of(self, *kinds: str) -> Any:
        """Return the configuration of the first layer of one of these kinds, or of any where none has them."""
        found = (config for config, kind in zip(self.configs, self.kinds, strict=True) if kind in kinds)
        return next(found, self.config)

    def width(self, config: Any, kind: str) -> int:
        """Return the channels of a layer's FFN, or of one expert; 0 for a layer without one."""
        return int({"mlp": config.intermediate_size, "moe": config.moe_intermediate_size}.get(kind, 0))

    def changed(self, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Architecture.changed`."""
        last = name.rpartition(".mixer.")[2]
        if last == "A_log":
            tensor = -tensor.float().exp()[:, None]
        elif last == "D":
            tensor = tensor[:, None]
        elif last == "conv1d.weight":
            tensor = tensor.squeeze(1)
        elif last == "norm.weight":
            tensor = tensor.reshape(self.of("linear_attention", "mamba").n_groups, -1)
        elif last == "dt_bias":
            name = name.removesuffix("dt_bias") + "dt.bias"
        elif last == "gate.e_score_correction_bias":
            name = name.removesuffix("_bias") + ".bias"
        elif ".mixer.experts." in name:
            name = name.replace("backbone.", "model.").replace(".mixer.experts.", ".mlp.experts.")
        yield name, tensor


class NemotronHMoe(NemotronH):
    """The same with experts in place of dense FFNs."""

    name = "nemotron_h_moe"
    biases: ClassVar[Sequence[str]] = (*NemotronH.biases[:-2], "exp_probs_b")

    def obstacles(self) -> list[str]:
        """See `Architecture.obstacles`."""
        found = super().obstacles()
        if "mlp" in self.kinds:
            found.append("it has dense FFNs next to experts, and llama.cpp's nemotron_h_moe has experts alone")
        return found

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        config = self.of("moe")
        add_experts(writer, config, config.moe_intermediate_size)
        writer.add_expert_shared_count(config.n_shared_experts)
        writer.add_expert_shared_feed_forward_length(config.moe_shared_expert_intermediate_size)
        writer.add_expert_weights_norm(config.norm_topk_prob)
        writer.add_expert_weights_scale(config.routed_scaling_factor)
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)
        if config.moe_latent_size:
            writer.add_moe_latent_size(config.moe_latent_size)
