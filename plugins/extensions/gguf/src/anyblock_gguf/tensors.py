"""From a child's tensors to those of a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.cache_spec import head_width

from anyblock_gguf.layers import LayerSizes

if TYPE_CHECKING:
    import torch
    from anyblock.contract.export_format import Child

_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_NAMES: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_tensors(
    child: Child, sizes: Sequence[LayerSizes], *, hidden: int, head_dim: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and tensors of the GGUF file, in the child's dtype, one group of the child in memory at a time.

    Args:
        child: a Llama in all but its layers' sizes.
        sizes: what llama.cpp is given for every layer.
        hidden: the width of the residual stream.
        head_dim: the width of a head.
    """
    for group in child.model_groups:
        for name, tensor in child.load(group).items():
            yield _renamed(name, tensor, sizes)
    for index, layer in enumerate(sizes):
        yield from _zeros(index, layer, hidden, head_dim)


def _renamed(name: str, tensor: torch.Tensor, sizes: Sequence[LayerSizes]) -> tuple[str, torch.Tensor]:
    found = _LAYER.fullmatch(name)
    if found is None:
        module, _, kind = name.rpartition(".")
        return f"{_NAMES[module]}.{kind}", tensor
    index, module, kind = found.groups()
    layer = sizes[int(index)]
    if module == "self_attn.q_proj":
        tensor = _interleaved(tensor, layer.heads)
    elif module == "self_attn.k_proj":
        tensor = _interleaved(tensor, layer.kv_heads)
    return f"blk.{index}.{_NAMES[module]}.{kind}", tensor


def _interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder a projection's rows from transformers' rotary halves to llama.cpp's neighbouring pairs."""
    rows = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, rows, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _zeros(index: int, layer: LayerSizes, hidden: int, head_dim: int) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    shapes: dict[str, tuple[int, ...]] = {}
    if layer.zero_attention:
        inputs = dict.fromkeys(("attn_q", "attn_k", "attn_v"), (head_dim, hidden))
        shapes |= {"attn_norm": (hidden,), **inputs, "attn_output": (hidden, head_dim)}
    if layer.zero_ffn:
        inputs = dict.fromkeys(("ffn_gate", "ffn_up"), (layer.width, hidden))
        shapes |= {"ffn_norm": (hidden,), **inputs, "ffn_down": (hidden, layer.width)}
    for name, shape in shapes.items():
        yield f"blk.{index}.{name}.weight", torch.zeros(shape)


def rope_factors(config: Any) -> torch.Tensor | None:
    """Return by what llama.cpp divides the frequencies of the rotary embedding, [head_dim / 2]; None for 1 everywhere.

    Args:
        config: transformers' configuration.

    Raises:
        ValueError: the scaling depends on the length of the text or changes attention's scale, which factors cannot say.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stated = config.rope_parameters
    kind = stated.get("rope_type", "default")
    if stated.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("only a part of each head is rotated")
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise ValueError(f"its rotary embedding is of the type {kind}")
    head_dim = head_width(config)
    import torch

    plain = 1.0 / stated["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    scaled, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    factors: torch.Tensor = plain / scaled
    return factors
