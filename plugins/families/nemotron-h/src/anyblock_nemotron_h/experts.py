"""How Nemotron-H routes, for the importance of experts."""

from __future__ import annotations

from typing import Any

import torch
from anyblock.descriptors.hooks import RemoveExpertsIndependentHook
from torch.nn import functional


class NemotronHRemoveExpertsIndependentHook(RemoveExpertsIndependentHook):
    """The removal of experts by what Nemotron-H's router does with given logits.

    Experts are chosen by `sigmoid(logits) + correction bias`, among the groups with the best two of them, and weighted by
    `sigmoid(logits)` alone. An expert whose logit is minus infinity is never chosen, whatever its bias.
    """

    def get_router_logits_and_routed_experts(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RemoveExpertsIndependentHook.get_router_logits_and_routed_experts`."""
        moe: Any = self.module
        if router_logits is None:
            router_logits = functional.linear(hidden_states.float(), moe.gate.weight.float())
        chosen = self.get_chosen_experts(router_logits)
        weights = router_logits.sigmoid().gather(1, chosen)
        if moe.gate.norm_topk_prob:
            weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-20)
        routed = moe.experts(moe.fc1_latent_proj(hidden_states), chosen, weights * moe.gate.routed_scaling_factor)
        return router_logits, moe.fc2_latent_proj(routed) + moe.shared_experts(hidden_states)

    def get_chosen_experts(self, router_logits: torch.Tensor) -> torch.Tensor:
        """See `RemoveExpertsIndependentHook.get_chosen_experts`: the choice within the best groups."""
        gate: Any = self.module.gate
        scores = router_logits.sigmoid() + gate.e_score_correction_bias
        scores = scores.masked_fill(router_logits.isneginf(), float("-inf"))
        groups = scores.unflatten(1, (gate.num_group, -1))
        best = groups.topk(2, dim=2).values.sum(dim=2).topk(gate.topk_group, dim=1).indices
        outside = torch.ones(groups.shape[:2], dtype=torch.bool, device=groups.device).scatter(1, best, value=False)
        allowed = groups.masked_fill(outside.unsqueeze(2), float("-inf")).flatten(1)
        chosen: torch.Tensor = allowed.topk(self.top_k, dim=1).indices
        return chosen
