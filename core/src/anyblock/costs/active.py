"""How many parameters one token uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from anyblock.contract.blocks import MoEConfig

_EXPERTS = re.compile(r"(?:^|\.)experts(?:\.|$)")


def is_expert_tensor(name: str, tensor: torch.Tensor, moe: MoEConfig) -> bool:
    """Return whether a tensor of a sparse ffn belongs to its routed experts.

    It does when its name has the component `experts` (`mlp.experts.3.up_proj.weight` of one expert, or
    `mlp.experts.gate_up_proj` of all), or when it has at least three dimensions and the first counts the experts
    (`block_sparse_moe.input_linear.weight`). A router (`mlp.gate.weight [experts, hidden]`, and biases of its own) and
    shared experts (`mlp.shared_expert.…`, `mlp.shared_experts.…`) do not, so every token counts them in full.
    """
    if _EXPERTS.search(name):
        return True
    return tensor.dim() >= 3 and tensor.shape[0] == moe.num_local_experts


def active_params(tensors: Mapping[str, torch.Tensor], moe: MoEConfig | None) -> float:
    """Return the parameters of one subblock that are used for each token.

    The routed experts count with `num_experts_per_tok / num_local_experts`, everything else in full. Experts of one
    layer are equally large, so the result is a whole number.

    Args:
        tensors: one subblock's tensors by checkpoint name, also on the meta device.
        moe: the block's `ffn.moe`; None for a dense subblock, all of which is active.
    """
    total = sum(tensor.numel() for tensor in tensors.values())
    if moe is None:
        return float(total)
    routed = sum(tensor.numel() for name, tensor in tensors.items() if is_expert_tensor(name, tensor, moe))
    return total - routed + routed * moe.num_experts_per_tok / moe.num_local_experts
