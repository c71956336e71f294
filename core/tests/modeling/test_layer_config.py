"""What one layer's constructor sees of the model's config."""

from __future__ import annotations

import pytest
from anyblock.modeling.layer_config import layer_config
from transformers import LlamaConfig, Qwen2Config


@pytest.mark.parametrize("stated", [True, False])
def test_fewer_query_heads_keep_their_width(stated: bool) -> None:
    """A constructor that divides the hidden size by the number of heads would make the heads that are left wider."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, head_dim=16) if stated else Qwen2Config(**sizes)
    own = layer_config(config, {"num_attention_heads": 2, "num_key_value_heads": 1})
    assert (own.num_attention_heads, own.head_dim) == (2, 16 if stated else 8)
    assert hasattr(config, "head_dim") == stated
    assert config.num_attention_heads == 4
    assert getattr(layer_config(config, {"num_key_value_heads": 1}), "head_dim", None) == (16 if stated else None)
