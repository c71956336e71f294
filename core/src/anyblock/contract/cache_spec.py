"""What a layer keeps between decoding steps, and how wide its heads are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CacheSpec:
    """The cache of one layer for one sequence, in elements.

    Attributes:
        per_token: elements kept for each token (keys and values of every head).
        window: at most so many tokens are kept; None keeps all.
        fixed: elements that do not depend on the length (a Mamba layer's convolution).
        float32: further ones that are kept in float32, whatever the cache's type is (a Mamba layer's state).
    """

    per_token: int = 0
    window: int | None = None
    fixed: int = 0
    float32: int = 0

    def elements(self, length: int) -> int:
        """Return the elements kept after `length` tokens of one sequence."""
        kept = length if self.window is None else min(length, self.window)
        return self.per_token * kept + self.fixed + self.float32

    def bytes(self, length: int, width: int) -> int:
        """Return the bytes kept after `length` tokens of one sequence, with `width` bytes for an element of the cache."""
        return (self.elements(length) - self.float32) * width + 4 * self.float32


def head_width(config: Any) -> int:
    """Return a head's width from a language model's config: its `head_dim`, else the hidden size over the query heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
