"""What a layer keeps between decoding steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyblock.blocks import BlockConfig


@dataclass(frozen=True)
class CacheSpec:
    """The cache of one layer for one sequence, in elements.

    Attributes:
        per_token: elements kept for each token (keys and values of every head).
        window: at most so many tokens are kept; None keeps all.
        fixed: elements that do not depend on the length (a Mamba layer's convolution and state).
    """

    per_token: int = 0
    window: int | None = None
    fixed: int = 0

    def elements(self, length: int) -> int:
        """Return the elements kept after `length` tokens of one sequence."""
        kept = length if self.window is None else min(length, self.window)
        return self.per_token * kept + self.fixed


def head_dim(config: Any) -> int:
    """Return a head's width from a text config: its own `head_dim`, else hidden size over query heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def attention_cache(config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
    """Return the cache of a softmax-attention layer with grouped keys and values.

    A layer is windowed when `layer_types` says so, or, without `layer_types`, when the config has a `sliding_window`.
    transformers keeps `window - 1` past tokens of such a layer.
    """
    heads = block_config.attention.num_key_value_heads
    if block_config.attention.no_op or heads is None:
        return CacheSpec()
    types = getattr(config, "layer_types", None)
    sliding = types[layer_index] == "sliding_attention" if types else getattr(config, "sliding_window", None) is not None
    window = config.sliding_window - 1 if sliding and config.sliding_window else None
    return CacheSpec(per_token=2 * heads * head_dim(config), window=window)
