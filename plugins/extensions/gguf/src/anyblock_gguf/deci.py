"""Llamas whose layers differ: llama.cpp's architecture `deci`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyblock.contract.cache_spec import head_width

from anyblock_gguf.architecture import Llama
from anyblock_gguf.layers import layer_sizes

if TYPE_CHECKING:
    import torch
    from anyblock.contract.blocks import BlockConfig


class Deci(Llama):
    """A number of heads and an FFN width for every layer, and halves that are not there."""

    name = "deci"
    varies = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    lacks_halves = True

    def __init__(self, configs: Sequence[Any], places: Sequence[int], blocks: Sequence[BlockConfig]) -> None:
        super().__init__(configs, places, blocks)
        self.sizes = layer_sizes(blocks, [config.num_attention_heads for config in configs])

    def obstacles(self) -> list[str]:
        """See `Architecture.obstacles`."""
        attends = any(not block.attention.removed for block in self.blocks)
        return super().obstacles() + ([] if attends else ["no layer has an attention"])

    def add_sizes(self, writer: Any) -> None:
        """See `Architecture.add_sizes`."""
        writer.add_feed_forward_length([layer.width for layer in self.sizes])
        writer.add_head_count([layer.heads for layer in self.sizes])
        writer.add_head_count_kv([layer.kv_heads for layer in self.sizes])

    def tensors(
        self, groups: Iterable[str], load: Callable[[str], Mapping[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Architecture.tensors`; halves of zeros stand where llama.cpp cannot do without a half."""
        yield from super().tensors(groups, load)
        hidden, head_dim = self.config.hidden_size, head_width(self.config)
        for index, layer in enumerate(self.sizes):
            shapes: dict[str, tuple[int, ...]] = {}
            if layer.zero_attention:
                inputs = dict.fromkeys(("attn_q", "attn_k", "attn_v"), (head_dim, hidden))
                shapes |= {"attn_norm": (hidden,), **inputs, "attn_output": (hidden, head_dim)}
            if layer.zero_ffn:
                inputs = dict.fromkeys(("ffn_gate", "ffn_up"), (layer.width, hidden))
                shapes |= {"ffn_norm": (hidden,), **inputs, "ffn_down": (hidden, layer.width)}
            yield from ((f"blk.{index}.{name}.weight", _zeros(shape)) for name, shape in shapes.items())


def _zeros(shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.zeros(shape)
