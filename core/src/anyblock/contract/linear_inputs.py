"""Reading linear modules: the weight as `[out, in]`, the bias, and the input as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anyblock.errors import UnsupportedModelError


def linear_weight(module: nn.Module) -> torch.Tensor:
    """Return a linear module's weight as `[out, in]`, without a copy; GPT-2's `Conv1D` stores it as `[in, out]`.

    Raises:
        UnsupportedModelError: the module has no two-dimensional weight.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        raise UnsupportedModelError(
            f"{type(module).__name__} has no two-dimensional weight",
            expected="a linear module, such as mlp.down_proj or self_attn.o_proj",
        )
    weight = weight.detach()
    return weight.t() if type(module).__name__ == "Conv1D" else weight


def linear_bias(module: nn.Module) -> torch.Tensor | None:
    """Return a linear module's bias `[out]`, or None."""
    bias = getattr(module, "bias", None)
    return bias.detach() if isinstance(bias, torch.Tensor) else None


def input_tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the module's first input as `[tokens, features]`."""
    value = args[0] if args else next(iter(kwargs.values()))
    return as_tokens(value)


def as_tokens(value: Any) -> torch.Tensor:
    """Return `[..., features]` as `[tokens, features]`; of a tuple, its first entry."""
    tensor: torch.Tensor = value[0] if isinstance(value, tuple) else value
    return tensor.detach().reshape(-1, tensor.shape[-1])


def to_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as the float64 CPU tensor that sums are kept in."""
    return tensor.to(device="cpu", dtype=torch.float64)
