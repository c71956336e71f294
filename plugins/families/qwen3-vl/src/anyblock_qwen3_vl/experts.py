"""How Qwen3-VL routes, for the importance of experts."""

from __future__ import annotations

from typing import Any

import torch
from anyblock.descriptors.hooks import RemoveExpertsIndependentHook
from torch.nn import functional


class Qwen3VLRemoveExpertsIndependentHook(RemoveExpertsIndependentHook):
    """The removal of experts by what Qwen3-VL's router does with given logits: the top-k's share among themselves."""

    def get_router_logits_and_routed_experts(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RemoveExpertsIndependentHook.get_router_logits_and_routed_experts`."""
        moe: Any = self.module
        if router_logits is None:
            router_logits = functional.linear(hidden_states, moe.gate.weight)
        top = router_logits.softmax(dim=-1, dtype=torch.float32).topk(self.top_k, dim=-1)
        weights = (top.values / top.values.sum(dim=-1, keepdim=True)).to(router_logits.dtype)
        return router_logits, moe.experts(hidden_states, top.indices, weights)
