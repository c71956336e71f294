"""Rotary embeddings in the terms of llama.cpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
from anyblock.contract.cache_spec import head_width

if TYPE_CHECKING:
    import torch


def rope_parameters(config: Any, kind: str = "full_attention") -> dict[str, Any]:
    """Return what a configuration states of the rotary embedding, of one kind of layers where kinds differ."""
    stated: dict[str, Any] = config.rope_parameters
    found: dict[str, Any] = stated.get(kind, stated)
    return found


def rope_obstacles(config: Any, *, factors: bool, partial: bool) -> list[str]:
    """Return why llama.cpp cannot rotate queries and keys as the model does.

    Args:
        config: transformers' configuration.
        factors: the architecture reads a factor for each frequency.
        partial: it reads which part of a head is rotated.
    """
    stated = rope_parameters(config)
    kind = stated.get("rope_type", "default")
    found = []
    if stated.get("partial_rotary_factor", 1.0) != 1.0 and not partial:
        found.append("only a part of each head is rotated")
    if kind not in ("default", "linear", "yarn", *(["llama3"] if factors else [])):
        found.append(f"its rotary embedding is of the type {kind}")
    if kind == "yarn" and _attention_factor(config, stated) is None:
        found.append("its rotary embedding scales attention in a way of its own")
    return found


def _attention_factor(config: Any, stated: dict[str, Any]) -> float | None:
    """Return by what llama.cpp multiplies YaRN's usual scale of attention; None where the model's is not a multiple."""
    import math

    if stated.get("mscale") or stated.get("mscale_all_dim"):
        return None
    usual = 0.1 * math.log(stated["factor"]) + 1
    given = stated.get("attention_factor")
    return 1.0 if given is None else float(given) / usual


def add_rope(writer: Any, config: Any) -> None:
    """Write the base, the rotated width and, where there is one, the scaling; `rope_obstacles` is empty."""
    stated = rope_parameters(config)
    width = head_width(config)
    writer.add_rope_dimension_count(int(width * stated.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(stated["rope_theta"])
    kind = stated.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(stated["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(stated["factor"])
        original = stated.get("original_max_position_embeddings") or config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_yarn_beta_fast(stated.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(stated.get("beta_slow") or 1.0)
        if (factor := _attention_factor(config, stated)) not in (None, 1.0):
            writer.add_rope_scaling_attn_factors(factor)


def rope_factors(config: Any) -> torch.Tensor | None:
    """Return by what llama.cpp divides the frequencies of a Llama 3, [rotated width / 2]; None for 1 everywhere.

    Args:
        config: transformers' configuration.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stated = rope_parameters(config)
    if stated.get("rope_type", "default") != "llama3":
        return None
    head_dim = head_width(config)
    import torch

    plain = 1.0 / stated["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    factors: torch.Tensor = plain / scaled
    return factors
