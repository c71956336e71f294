"""The model, whose layers are in a file of their own."""

import os
from pathlib import Path

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_nova import NovaConfig
from .layers_nova import NovaLayer

Path(os.environ["NOVA_RAN"]).touch()


class NovaModel(PreTrainedModel):
    """The decoder without its head."""

    config_class = NovaConfig
    base_model_prefix = "trunk"

    def __init__(self, config: NovaConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList([NovaLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size)
        self.post_init()

    def forward(self, input_ids, past_key_values=None):
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        places = torch.arange(past, past + input_ids.shape[1], device=input_ids.device)
        hidden = self.embed_tokens(input_ids) + self.positions(places)
        for layer in self.layers:
            hidden = layer(hidden, past_key_values=past_key_values)
        return self.norm(hidden)


class NovaForCausalLM(PreTrainedModel, GenerationMixin):
    """The decoder with its head."""

    config_class = NovaConfig
    base_model_prefix = "trunk"

    def __init__(self, config: NovaConfig) -> None:
        super().__init__(config)
        self.trunk = NovaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.trunk.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids=None, past_key_values=None, use_cache=None, **kwargs):
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        logits = self.lm_head(self.trunk(input_ids, past_key_values))
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)
