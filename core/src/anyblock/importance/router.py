"""Looking into, and changing, what a router decides, without knowing how the family routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from anyblock.contract.linear_inputs import as_tokens, input_tokens
from anyblock.errors import UnsupportedModelError

ROUTER_NAMES: Final = ("gate", "router")
CORRECTION_BIAS: Final = "e_score_correction_bias"
"""Added to sigmoid scores for the choice of experts, not for their weights (DeepSeek-V3 and its descendants)."""


@dataclass
class Routing:
    """What a router did in its last forward pass.

    Attributes:
        logits: its raw outputs, before any change, `[tokens, experts]`.
        indices: the chosen experts `[tokens, k]`; None when the router itself does not choose.
    """

    logits: torch.Tensor | None = None
    indices: torch.Tensor | None = None


def find_router(module: nn.Module) -> nn.Module:
    """Return the router of a sparse feed-forward module.

    Raises:
        UnsupportedModelError: there is no submodule of a known name.
    """
    for name in ROUTER_NAMES:
        child = getattr(module, name, None)
        if isinstance(child, nn.Module):
            return child
    raise UnsupportedModelError(
        f"{type(module).__name__} has no router",
        expected=f"a submodule called {' or '.join(ROUTER_NAMES)}",
        hint="derive from RemoveExpertsIndependentHook and say how this family routes",
    )


@contextmanager
def watch_router(
    router: nn.Module, num_experts: int, change: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Iterator[Routing]:
    """Within this scope, record what the router decides; `change` replaces its logits before it chooses.

    The router's own code runs, whatever it does with the logits. An expert whose logit is minus infinity for every
    token is taken out of the correction bias as well, since a sigmoid would let it back in.
    """
    routing = Routing()
    original, outer = router.forward, vars(router).get("forward")

    def forward(*args: Any, **kwargs: Any) -> Any:
        """Route as before, and note which experts were taken."""
        with _Intercept(routing, _correction(router, args), num_experts, change):
            output = original(*args, **kwargs)
        routing.indices = _chosen(output)
        return output

    router.forward = forward
    try:
        yield routing
    finally:
        if outer is None:
            del router.forward
        else:
            router.forward = outer


@contextmanager
def silenced_experts(router: nn.Module, experts: Sequence[int], num_experts: int) -> Iterator[None]:
    """Within this scope the router never chooses these experts: what a child without them must equal."""
    removed = torch.as_tensor(experts, dtype=torch.int64)

    def change(logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, removed.to(logits.device), float("-inf"))

    with watch_router(router, num_experts, change):
        yield


class _Intercept(TorchFunctionMode):
    """Replaces the result of the one linear map that yields a logit for each expert."""

    def __init__(
        self,
        routing: Routing,
        bias: torch.Tensor | None,
        num_experts: int,
        change: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        super().__init__()
        self.routing, self.bias, self.num_experts, self.change = routing, bias, num_experts, change
        self.changed_bias: torch.Tensor | None = None
        self.done = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self.changed_bias is not None:
            args = tuple(self.changed_bias if value is self.bias else value for value in args)
        result = func(*args, **(kwargs or {}))
        if self.done or func is not functional.linear or result.shape[-1] != self.num_experts:
            return result
        self.done = True
        self.routing.logits = as_tokens(result)
        if self.change is None:
            return result
        changed = self.change(result)
        if self.bias is not None:
            silent = as_tokens(changed).isneginf().all(dim=0)
            self.changed_bias = self.bias.detach().masked_fill(silent, float("-inf"))
        return changed


def choice_scores(
    router: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, num_experts: int
) -> torch.Tensor:
    """Return what a router chooses its experts by, float32 `[tokens, experts]`: a value for all, not only the chosen.

    For a router with a weight `[experts, hidden]` that is its linear map of the inputs; where it has a correction bias, that
    bias added to their sigmoid or, where this explains better which experts it chose, to their softmax (ERNIE). The scores
    that it returns may be zero beyond the chosen experts and are not used. Otherwise it is the first output with an entry for
    each expert. Group limits are not applied.

    Args:
        router: the module.
        args, kwargs: what its last forward pass was given.
        output: what it returned.
        num_experts: how many there are to choose from.

    Raises:
        UnsupportedModelError: the module is not a router of either form.
    """
    weight = getattr(router, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dim() == 2 and weight.shape[0] == num_experts:
        own = getattr(router, "bias", None)
        inputs = input_tokens(args, kwargs).float()
        logits = functional.linear(inputs, weight.float(), None if own is None else own.float())
        correction = _correction(router, args)
        if correction is None:
            return logits
        found = [scores + correction.detach().float().reshape(-1) for scores in (logits.sigmoid(), logits.softmax(-1))]
        chosen = _chosen(output)
        return found[0] if chosen is None else max(found, key=lambda scores: _agreement(scores, chosen))
    for value in output if isinstance(output, tuple) else (output,):
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.shape[-1] == num_experts:
            return as_tokens(value).float()
    raise UnsupportedModelError(
        f"{type(router).__name__} gives no score for each of {num_experts} experts",
        expected="a router with a weight [experts, hidden], or one that returns its logits",
    )


def _correction(router: nn.Module, args: tuple[Any, ...]) -> torch.Tensor | None:
    """Return the bias that a router adds before it chooses: its own, that of a module in it (ERNIE), or its second argument."""
    own = {name.rpartition(".")[2]: value for name, value in router.state_dict(keep_vars=True).items()}
    return own.get(CORRECTION_BIAS, next(iter(args[1:]), None))  # MiniMax-M2's is an argument


def _chosen(output: Any) -> torch.Tensor | None:
    """Return the chosen experts `[tokens, k]` out of a router's output; None when the router itself does not choose."""
    for value in reversed(output if isinstance(output, tuple) else ()):
        if isinstance(value, torch.Tensor) and not value.is_floating_point():
            return as_tokens(value)
    return None


def _agreement(scores: torch.Tensor, chosen: torch.Tensor) -> int:
    """Return how many of the chosen experts are those with the highest scores."""
    best = torch.zeros_like(scores).scatter_(1, scores.topk(chosen.shape[1], dim=1).indices, 1.0)
    return int(best.gather(1, chosen).sum())
