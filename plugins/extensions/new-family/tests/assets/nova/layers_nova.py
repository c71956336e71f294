"""The layers."""

import os
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu

from .configuration_nova import NovaConfig

Path(os.environ["NOVA_RAN"]).touch()


class NovaMix(nn.Module):
    """Causal attention."""

    def __init__(self, config: NovaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.width = config.hidden_size // NovaConfig.num_attention_heads
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


class NovaFeed(nn.Module):
    """A gated feed-forward network."""

    def __init__(self, config: NovaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class NovaLayer(nn.Module):
    """Both halves, each after its norm."""

    def __init__(self, config: NovaConfig, layer_idx: int) -> None:
        super().__init__()
        self.mix_norm, self.feed_norm = nn.RMSNorm(config.hidden_size), nn.RMSNorm(config.hidden_size)
        self.mix, self.feed = NovaMix(config, layer_idx), NovaFeed(config)

    def forward(self, hidden_states, past_key_values=None):
        hidden_states = hidden_states + self.mix(self.mix_norm(hidden_states), past_key_values=past_key_values)
        return hidden_states + self.feed(self.feed_norm(hidden_states))
