"""Tiny real models, their checkpoints' tensors on the meta device, and the hooks that costs ask for."""

from __future__ import annotations

import re

import pytest
import torch
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor
from anyblock.family import ModelFamily

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def build_model(model_type, **changes):
    """Return a tiny random model of this type."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **changes})
    return AutoModelForCausalLM.from_config(config).eval()


def save_and_group(model, folder):
    """Save a model and return `{group: {checkpoint name: meta tensor}}`, grouped as a subblock checkpoint is."""
    from safetensors import safe_open

    model.save_pretrained(folder)
    groups: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            groups.setdefault(group_of(name), {})[name] = file.get_tensor(name).to("meta")
    return groups


def group_of(name):
    layer = re.match(r"model\.layers\.(\d+)\.(\w+)", name)
    if layer:
        half = "attention" if layer[2] in {"self_attn", "input_layernorm"} else "ffn"
        return f"block_{layer[1]}_{half}"
    return "embeddings" if "embed" in name else "lm_head"


class AnyDecoder(DenseDescriptor):
    """The base of dense families; the hooks that costs use do for sparse ones, too."""

    decoder_layer = "transformers.models.llama.modeling_llama.LlamaDecoderLayer"

    @hookimpl
    def conformance_config(self):
        from transformers import LlamaConfig

        return LlamaConfig(**SIZES)


@pytest.fixture(scope="session")
def family():
    return ModelFamily.from_descriptor(AnyDecoder, model_type="llama")


@pytest.fixture(scope="session")
def build():
    return build_model


@pytest.fixture(scope="session")
def checkpoint_tensors():
    return save_and_group
