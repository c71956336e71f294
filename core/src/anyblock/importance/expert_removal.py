"""Expert importance by removal: what changes in a sparse layer's output when one expert is missing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from anyblock.contract.importance_hook import HookContext, ImportanceHook, paused
from anyblock.contract.linear_inputs import as_tokens, input_tokens
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.importance.router import find_router, watch_router
from anyblock.importance.voting import moe_config


class RemoveExpertsIndependentHook(ImportanceHook):
    """Score every expert by the change it makes to the layer's output, each on its own.

    For each expert that some tokens use, those tokens are routed again with its logit at minus infinity. With `f` the
    fraction of tokens that use it, `f · mean (out - out')²` and `f · (1 - mean cos(out, out'))` are added up over the
    batches; an expert that no token uses has zero in both and is the least important. Attach it to the sparse module.

    A family says how it routes in `get_router_logits_and_routed_experts`, and in `get_chosen_experts` where its choice
    is not the plain top-k of the logits. `MoERemoveExpertsHook` needs neither.

    Args:
        module: the sparse feed-forward module.
        context: see `HookContext`.
        metric: the difference that `scores` reports, `mse` or `cosine`.
    """

    def __init__(self, module: nn.Module, context: HookContext, metric: Literal["mse", "cosine"] = "mse") -> None:
        super().__init__(module, context)
        if metric not in ("mse", "cosine"):
            raise UsageError(f"metric is {metric!r}", expected="'mse' or 'cosine'")
        moe = moe_config(context, type(self).__name__)
        self.metric = metric
        self.top_k, self.num_experts = moe.num_experts_per_tok, moe.num_local_experts
        self.mse = torch.zeros(self.num_experts, dtype=torch.float64)
        self.cosine = torch.zeros(self.num_experts, dtype=torch.float64)

    @abstractmethod
    def get_router_logits_and_routed_experts(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the sparse layer.

        Args:
            hidden_states: `[tokens, hidden]`.
            router_logits: route by these `[tokens, experts]`; None lets the router compute its own.

        Returns:
            The router's logits `[tokens, experts]` and the layer's output `[tokens, hidden]`.
        """

    def get_chosen_experts(self, router_logits: torch.Tensor) -> torch.Tensor:
        """Return the experts of the last run without given logits, `[tokens, k]`; the top-k unless overridden."""
        return router_logits.topk(self.top_k, dim=-1).indices

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Route every expert's tokens once more without it."""
        hidden = input_tokens(args, kwargs)
        with paused():
            logits, complete = self.get_router_logits_and_routed_experts(hidden)
            chosen = self.get_chosen_experts(logits)
            for expert in torch.unique(chosen).tolist():
                users = (chosen == expert).any(dim=1).nonzero().squeeze(1)
                disabled = logits[users].index_fill(1, users.new_tensor([expert]), float("-inf"))
                _, without = self.get_router_logits_and_routed_experts(hidden[users], disabled)
                before, after = complete[users].float(), without.float()
                share = len(users) / len(hidden)
                similarity = functional.cosine_similarity(before, after, dim=1).mean()
                self.mse[expert] += share * functional.mse_loss(after, before).item()
                self.cosine[expert] += share * max(0.0, 1.0 - similarity.item())

    def scores(self) -> torch.Tensor:
        """Return the mean difference that each expert makes, float32 `[experts]`."""
        return (getattr(self, self.metric) / max(self.batches, 1)).float()  # type: ignore[no-any-return]


class MoERemoveExpertsHook(RemoveExpertsIndependentHook):
    """The removal of experts from any sparse module with a router below it: the module's own code runs every time.

    Group limits, correction biases, normalisation, latent projections and shared experts are thus those of the model.
    """

    def __init__(self, module: nn.Module, context: HookContext, metric: Literal["mse", "cosine"] = "mse") -> None:
        super().__init__(module, context, metric)
        self.router = find_router(module)
        self._chosen: torch.Tensor | None = None

    def get_router_logits_and_routed_experts(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RemoveExpertsIndependentHook.get_router_logits_and_routed_experts`."""

        def given(own: torch.Tensor) -> torch.Tensor:
            return own if router_logits is None else router_logits.reshape(own.shape).to(own.dtype)

        with watch_router(self.router, self.num_experts, given) as routing:
            output = self.module.forward(hidden_states.unsqueeze(0))
        if routing.logits is None:
            raise UnsupportedModelError(
                f"the router {type(self.router).__name__} makes no linear map to {self.num_experts} logits",
                expected="a linear router",
                hint="derive from RemoveExpertsIndependentHook and say how this family routes",
            )
        if router_logits is None:
            self._chosen = routing.indices
        return routing.logits, as_tokens(output)

    def get_chosen_experts(self, router_logits: torch.Tensor) -> torch.Tensor:
        """Return the experts that the router chose in the last run."""
        return super().get_chosen_experts(router_logits) if self._chosen is None else self._chosen
