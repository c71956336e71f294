"""A model class that transformers does not have: parallel halves that are scaled together, fused projections, odd names."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast


class OddConfig(PreTrainedConfig):
    model_type = "anyblock_odd"
    attribute_map: ClassVar = {
        "hidden_size": "breadth",
        "num_hidden_layers": "storeys",
        "num_attention_heads": "eyes",
        "num_key_value_heads": "ears",
        "vocab_size": "words",
    }

    def __init__(self, breadth=32, storeys=2, eyes=4, ears=2, words=64, hall=24, tie_word_embeddings=False, **kwargs):
        self.breadth, self.storeys, self.eyes, self.ears, self.words, self.hall = (
            breadth,
            storeys,
            eyes,
            ears,
            words,
            hall,
        )
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class Gaze(nn.Module):
    def __init__(self, config: Any, block_id: int) -> None:
        super().__init__()
        self.block_id, self.eyes, self.ears = block_id, config.eyes, config.ears
        self.width = config.breadth // getattr(config, "all_eyes", config.eyes)
        self.all_in = nn.Linear(config.breadth, self.width * (config.eyes + 2 * config.ears))
        self.way_out = nn.Linear(self.width * config.eyes, config.breadth, bias=False)

    def forward(self, x: torch.Tensor, past_key_values: Cache | None = None) -> torch.Tensor:
        batch, length, _ = x.shape
        parts = self.all_in(x).view(batch, length, -1, self.width).transpose(1, 2)
        query, key, value = parts.split([self.eyes, self.ears, self.ears], dim=1)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.block_id)
        group = self.eyes // self.ears
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        seen = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(key.shape[2] - length)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.way_out(mixed.transpose(1, 2).reshape(batch, length, -1))


class Hall(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.doors = nn.Linear(config.breadth, 2 * config.hall)
        self.gate_way = nn.Linear(config.hall, config.breadth, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        open_, shut = self.doors(x).chunk(2, dim=-1)
        return self.gate_way(functional.silu(open_) * shut)


class Storey(nn.Module):
    def __init__(self, config: Any, block_id: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(config.breadth), nn.LayerNorm(config.breadth)
        self.gaze, self.hall = Gaze(config, block_id), Hall(config)
        self.share = nn.Parameter(torch.ones(()))

    def forward(self, hidden_states: torch.Tensor, past_key_values: Cache | None = None) -> tuple[torch.Tensor]:
        both = self.gaze(self.first(hidden_states), past_key_values=past_key_values) + self.hall(
            self.second(hidden_states)
        )
        return (hidden_states + self.share * (0.5 * both),)


class OddBody(PreTrainedModel):
    config_class = OddConfig
    base_model_prefix = "body"

    def __init__(self, config: OddConfig) -> None:
        super().__init__(config)
        self.lexicon = nn.Embedding(config.words, config.breadth)
        self.tower = nn.ModuleList([Storey(config, block_id) for block_id in range(config.storeys)])
        self.roof = nn.LayerNorm(config.breadth)
        self.post_init()


class OddForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = OddConfig
    base_model_prefix = "body"

    def __init__(self, config: OddConfig) -> None:
        super().__init__(config)
        self.body = OddBody(config)
        self.voice = nn.Linear(config.breadth, config.words, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.body.lexicon

    def get_output_embeddings(self) -> nn.Module:
        return self.voice

    def forward(self, input_ids=None, past_key_values=None, use_cache=None, **kwargs):
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        hidden = self.body.lexicon(input_ids)
        for storey in self.body.tower:
            hidden = storey(hidden, past_key_values=past_key_values)[0]
        logits = self.voice(self.body.roof(hidden))
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


def register() -> None:
    AutoConfig.register(OddConfig.model_type, OddConfig, exist_ok=True)
    AutoModelForCausalLM.register(OddConfig, OddForCausalLM, exist_ok=True)
