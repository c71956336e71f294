"""Channel importance inside every expert of a sparse feed-forward layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from anyblock.errors import UnsupportedModelError
from anyblock.importance.hook import HookContext, ImportanceHook
from anyblock.importance.linear import as_tokens, to_sum
from anyblock.importance.voting import moe_config


class ExpertChannelContributionHook(ImportanceHook):
    """Score channel *i* of expert *e* by `‖w_i‖ · Σ_batches 1/tokens Σ_{tokens of e} p |h_i|`.

    `h` is the expert's intermediate activation, `p` the token's weight for it, and `w_i` the column of its output
    projection: the independent channel score, for the part of the text that reaches the expert. Channels of an expert that
    no token reached are told apart by `‖w_i‖` alone. Attach it to the module that holds the experts' fused weights
    (`mlp.experts` in transformers 5).
    """

    summed: ClassVar[tuple[str, ...]] = ("activations",)

    def __init__(self, module: nn.Module, context: HookContext) -> None:
        super().__init__(module, context)
        moe = moe_config(context, type(self).__name__)
        if not isinstance(getattr(module, "down_proj", None), torch.Tensor) or not hasattr(module, "has_gate"):
            raise UnsupportedModelError(
                f"{type(module).__name__} does not hold fused expert weights",
                expected="an experts module of transformers 5, with gate_up_proj or up_proj, and down_proj",
            )
        self.activations = torch.zeros((moe.num_local_experts, moe.expert_intermediate_dim), dtype=torch.float64)

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Compute every expert's activations again, for the tokens that it received."""
        hidden, indices, weights = (as_tokens(value) for value in (*args, *kwargs.values()))
        for expert in torch.unique(indices).tolist():
            if expert >= len(self.activations):
                continue
            token, place = (indices == expert).nonzero(as_tuple=True)
            active = self._intermediate(hidden[token], expert)
            weighted = active.float().abs() * weights[token, place].float().abs().unsqueeze(1)
            self.activations[expert] += to_sum(weighted.sum(dim=0)) / len(hidden)

    def scores(self) -> torch.Tensor:
        """Return the importance of every expert's channels, float32 `[experts, channels]`."""
        experts: Any = self.module
        norms = [down.float().norm(dim=1 if experts.is_transposed else 0) for down in experts.down_proj.detach()]
        weight, reached = to_sum(torch.stack(norms)), self.activations.any(dim=1, keepdim=True)
        return (weight * self.activations.where(reached, torch.ones(()))).float()

    def to_dict(self) -> dict[str, Any]:
        """See `ImportanceHook.to_dict`."""
        return {"score": self.scores(), "agg_channel_activations": self.activations.float()}

    def _intermediate(self, inputs: torch.Tensor, expert: int) -> torch.Tensor:
        experts: Any = self.module
        name = "gate_up_proj" if experts.has_gate else "up_proj"
        weight = getattr(experts, name)[expert]
        value = inputs @ (weight if experts.is_transposed else weight.t())
        if experts.has_bias:
            value = value + getattr(experts, f"{name}_bias")[expert]
        return experts._apply_gate(value) if experts.has_gate else experts.act_fn(value)  # type: ignore[no-any-return]
