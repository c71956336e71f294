"""Channel importance inside every expert of a sparse feed-forward layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.linear_inputs import as_tokens, to_sum
from anyblock.errors import UnsupportedModelError
from anyblock.importance.voting import moe_config


class ExpertChannelContributionHook(ImportanceHook):
    """Score channel *i* of expert *e* by `‖w_i‖ · Σ_batches 1/tokens Σ_{tokens of e} p |h_i|`.

    `h` is the expert's intermediate activation, `p` the token's weight for it, and `w_i` the column of its output
    projection: the independent channel score, for the part of the text that reaches the expert. Channels of an expert that
    no token reached are distinguished by `‖w_i‖` alone. Attach it to the module that holds the experts' fused weights
    (`mlp.experts` in transformers 5).
    """

    def __init__(self, module: nn.Module, context: HookContext) -> None:
        super().__init__(module, context)
        moe = moe_config(context, type(self).__name__)
        check_fused_experts(module)
        self.activations = torch.zeros((moe.num_local_experts, moe.expert_intermediate_dim), dtype=torch.float64)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Compute every expert's activations again, for the tokens that it received."""
        tokens = len(as_tokens(args[0] if args else next(iter(kwargs.values()))))
        for expert, active, weight in expert_activations(self.module, args, kwargs):
            if expert < len(self.activations):
                weighted = active.float().abs() * weight.float().abs().unsqueeze(1)
                self.activations[expert] += to_sum(weighted.sum(dim=0)) / tokens

    def scores(self) -> torch.Tensor:
        """Return the importance of every expert's channels, float32 `[experts, channels]`."""
        experts: Any = self.module
        norms = [down.float().norm(dim=1 if experts.is_transposed else 0) for down in experts.down_proj.detach()]
        weight, reached = to_sum(torch.stack(norms)), self.activations.any(dim=1, keepdim=True)
        return (weight * self.activations.where(reached, torch.ones(()))).float()


def check_fused_experts(module: nn.Module) -> None:
    """Accept a module that holds the weights of all experts.

    Raises:
        UnsupportedModelError: it does not.
    """
    if not isinstance(getattr(module, "down_proj", None), torch.Tensor) or not hasattr(module, "has_gate"):
        raise UnsupportedModelError(
            f"{type(module).__name__} does not hold fused expert weights",
            expected="an experts module of transformers 5, with gate_up_proj or up_proj, and down_proj",
        )


def expert_activations(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield `(expert, activations, weights)` of every expert that tokens reached, computed again from a module's inputs.

    Args:
        module: holds the experts' fused weights.
        args, kwargs: what its forward pass got: hidden states, chosen experts, and the tokens' weights for them.

    Yields:
        The expert's intermediate activations `[its tokens, channels]`, and the tokens' weights for it `[its tokens]`.
    """
    hidden, indices, weights = (as_tokens(value) for value in (*args, *kwargs.values()))
    for expert in torch.unique(indices).tolist():
        if expert < len(module.down_proj):  # type: ignore[arg-type]
            token, place = (indices == expert).nonzero(as_tuple=True)
            yield expert, _intermediate(module, hidden[token], expert), weights[token, place]


def _intermediate(experts: Any, inputs: torch.Tensor, expert: int) -> torch.Tensor:
    name = "gate_up_proj" if experts.has_gate else "up_proj"
    weight = getattr(experts, name)[expert]
    value = inputs @ (weight if experts.is_transposed else weight.t())
    if experts.has_bias:
        value = value + getattr(experts, f"{name}_bias")[expert]
    return experts._apply_gate(value) if experts.has_gate else experts.act_fn(value)  # type: ignore[no-any-return]
