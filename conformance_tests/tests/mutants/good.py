"""The good adapters that mutants are made of: a dense family and a sparse one."""

from __future__ import annotations

from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.contract.capabilities import CAPABILITIES, Capability, Support
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class Dense(DenseDescriptor):
    """Llama."""

    _model_type = "llama"
    decoder_layer = "transformers.models.llama.modeling_llama.LlamaDecoderLayer"

    @hookimpl
    def conformance_config(self):
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
        )


class Sparse(DenseDescriptor):
    """Qwen3-MoE."""

    _model_type = "qwen3_moe"
    decoder_layer = "transformers.models.qwen3_moe.modeling_qwen3_moe.Qwen3MoeDecoderLayer"

    @hookimpl
    def create_block_configs(self, config):
        moe = MoEConfig(
            num_local_experts=config.num_experts,
            num_experts_per_tok=config.num_experts_per_tok,
            expert_intermediate_dim=config.moe_intermediate_size,
        )
        attention = AttentionConfig(num_key_value_heads=config.num_key_value_heads)
        return [BlockConfig(attention=attention, ffn=FFNConfig(moe=moe))] * config.num_hidden_layers

    @hookimpl
    def block_config_to_layer_overrides(self, block_config):
        moe, attention = block_config.ffn.moe, block_config.attention
        values = {
            "num_key_value_heads": attention.num_key_value_heads,
            "num_attention_heads": attention.num_attention_heads,
            "num_local_experts": moe and moe.num_local_experts,
            "moe_intermediate_size": moe and moe.expert_intermediate_dim,
        }
        return {name: value for name, value in values.items() if value is not None}

    @hookimpl
    def pruning_mixins(self):
        from anyblock.pruning.expert_channels import ExpertIntermediateLayerDescriptor, ExpertIntermediatePruningMixIn
        from anyblock.pruning.experts import ExpertRemovalLayerDescriptor, ExpertRemovalPruningMixIn
        from anyblock.pruning.layouts import dense_mixins

        heads = {kind: mixin for kind, mixin in dense_mixins().items() if kind != "ffn_intermediate"}
        return {
            **heads,
            "experts_removal": ExpertRemovalPruningMixIn(ExpertRemovalLayerDescriptor()),
            "expert_intermediate": ExpertIntermediatePruningMixIn(ExpertIntermediateLayerDescriptor()),
        }

    @hookimpl
    def capabilities(self):
        can = {"convert", "build", "attention_no_op", "ffn_no_op", "search", *self.pruning_mixins()}
        return {name: Capability(Support.FULL if name in can else Support.UNSUPPORTED) for name in CAPABILITIES}

    @hookimpl
    def conformance_config(self):
        from transformers import Qwen3MoeConfig

        return Qwen3MoeConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=24,
            moe_intermediate_size=12,
            num_experts=4,
            num_experts_per_tok=2,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=64,
            tie_word_embeddings=False,
        )


class Instead:
    """An object whose attributes are those of another one, except for some."""

    def __init__(self, original, **changed):
        self.__dict__.update(changed, _original=original)

    def __getattr__(self, name):
        return getattr(self.__dict__["_original"], name)


def changed_mixin(mixins, kind, **methods):
    """Return the mixins with some methods of one of them replaced; each takes the original mixin first."""
    return {**mixins, kind: _changed(mixins[kind], methods)}


def changed_stream(stream, **methods):
    """Return how the residual stream is pruned with some methods replaced; each takes the original first."""
    return _changed(stream, methods)


def _changed(original, methods):
    body = {
        name: (lambda self, *args, _do=do, **options: _do(original, *args, **options)) for name, do in methods.items()
    }
    changed = object.__new__(type(type(original).__name__, (type(original),), body))
    changed.__dict__.update(original.__dict__)
    return changed
