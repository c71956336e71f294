"""The model: a decoder of its own, with the interfaces that transformers asks of a causal language model."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class PebbleConfig(PreTrainedConfig):
    """Sizes of the model."""

    model_type = "pebble"

    vocab_size: int = 64
    hidden_size: int = 32
    intermediate_size: int = 48
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False


class PebbleMix(nn.Module):
    """Causal attention."""

    def __init__(self, config: PebbleConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.width = config.hidden_size // PebbleConfig.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * self.width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.width, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * self.width, config.hidden_size, bias=False)

    def forward(self, x, past_key_values=None):
        batch, length, _ = x.shape
        query, key, value = (
            linear(x).view(batch, length, -1, self.width).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        seen = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(key.shape[2] - length)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class PebbleFeed(nn.Module):
    """A gated feed-forward network."""

    def __init__(self, config: PebbleConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class PebbleLayer(nn.Module):
    """Both halves, each after its norm."""

    def __init__(self, config: PebbleConfig, layer_idx: int) -> None:
        super().__init__()
        self.mix_norm, self.feed_norm = nn.RMSNorm(config.hidden_size), nn.RMSNorm(config.hidden_size)
        self.mix, self.feed = PebbleMix(config, layer_idx), PebbleFeed(config)

    def forward(self, hidden_states, past_key_values=None):
        hidden_states = hidden_states + self.mix(self.mix_norm(hidden_states), past_key_values=past_key_values)
        return hidden_states + self.feed(self.feed_norm(hidden_states))


class PebbleModel(PreTrainedModel):
    """The decoder without its head."""

    config_class = PebbleConfig
    base_model_prefix = "trunk"

    def __init__(self, config: PebbleConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList([PebbleLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size)
        self.post_init()

    def forward(self, input_ids, past_key_values=None):
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        places = torch.arange(past, past + input_ids.shape[1], device=input_ids.device)
        hidden = self.embed_tokens(input_ids) + self.positions(places)
        for layer in self.layers:
            hidden = layer(hidden, past_key_values=past_key_values)
        return self.norm(hidden)


class PebbleForCausalLM(PreTrainedModel, GenerationMixin):
    """The decoder with its head."""

    config_class = PebbleConfig
    base_model_prefix = "trunk"

    def __init__(self, config: PebbleConfig) -> None:
        super().__init__(config)
        self.trunk = PebbleModel(config)
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
