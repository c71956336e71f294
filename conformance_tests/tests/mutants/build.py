"""Buffers, the layer-wise engine, no-ops and children."""

from __future__ import annotations

import torch
from anyblock.contract.hookspecs import hookimpl
from anyblock.modeling.no_op import NoOpFFN, remove_half
from torch import nn

from mutants.good import Dense
from mutants.registry import mutant


@mutant("build.buffers")
class HalvesTheRotaryFrequencies(Dense):
    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        super().init_rotary_embedding(model, device, dtype)
        model.model.rotary_emb.inv_freq *= 0.5
        return True


@mutant("build.buffers")
class RoundsRotaryToTheModelsDtype(Dense):
    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        super().init_rotary_embedding(model, device, dtype)
        model.model.rotary_emb.to(dtype)
        return True


@mutant("build.call-order")
class NamesLayersBackwards(Dense):
    @hookimpl
    def layer_block_name(self, index):
        return f"model.layers.{1 - index}"


@mutant("build.layerwise")
class MovesTheWholeModel(Dense):
    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        super().init_rotary_embedding(model, device, dtype)
        model.to(device)
        return True


@mutant("build.no-op")
class AttentionNoOpKeepsTheNorm(Dense):
    attention_norms = ("input_layernorm",)

    @hookimpl
    def attn_no_op_post_init(self, decoder_layer):
        norm = decoder_layer.input_layernorm
        super().attn_no_op_post_init(decoder_layer)
        decoder_layer.input_layernorm = norm
        return True


@mutant("build.no-op")
class FFNNoOpRepeatsTheResidual(Dense):
    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer):
        remove_half(decoder_layer, "mlp", nn.Identity(), ["post_attention_layernorm"])
        return True


@mutant("build.no-op")
class NormGoesWithTheWrongHalf(Dense):
    attention_norms = ("post_attention_layernorm",)
    ffn_norms = ("input_layernorm",)


@mutant("build.no-op-both")
class NoOpsDoNotCombine(Dense):
    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer):
        assert decoder_layer.self_attn.q_proj is not None
        return super().mlp_no_op_post_init(decoder_layer)


@mutant("build.cached-decoding")
class NoOpForgetsTheCache(Dense):
    @hookimpl
    def attn_no_op_post_init(self, decoder_layer):
        remove_half(decoder_layer, "self_attn", NoOpFFN(returns=2), ["input_layernorm"])
        return True


@mutant("build.no-op")
class NoOpSavesABuffer(Dense):
    @hookimpl
    def attn_no_op_post_init(self, decoder_layer):
        super().attn_no_op_post_init(decoder_layer)
        decoder_layer.self_attn.register_buffer("nothing", torch.zeros(1))
        return True

    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        for module in model.modules():
            if getattr(module, "nothing", None) is not None:
                module.nothing = torch.zeros(1)
        return super().init_rotary_embedding(model, device, dtype)


@mutant("build.save-reload")
class TheLoaderFinishesTheNoOp(Dense):
    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer):
        remove_half(decoder_layer, "mlp", nn.ReLU(), ["post_attention_layernorm"])
        return True

    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        for layer in model.model.layers:
            layer.mlp = NoOpFFN() if isinstance(layer.mlp, nn.ReLU) else layer.mlp
        return super().init_rotary_embedding(model, device, dtype)


@mutant("build.tied-embeddings")
class StoresTheTiedMatrixTwice(Dense):
    @hookimpl
    def dequantize(self, names, config):
        embedding = "model.embed_tokens.weight"
        return dict.fromkeys((embedding, "lm_head.weight"), (embedding,)) if config.tie_word_embeddings else None

    @hookimpl
    def dequantize_tensor(self, name, sources):
        return sources["model.embed_tokens.weight"].clone()


@mutant("build.tied-embeddings")
class UntiesTheHead(Dense):
    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        if model.config.tie_word_embeddings:
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())
        return super().init_rotary_embedding(model, device, dtype)
