"""`ImportanceHook`: a forward hook on one module that scores channels, heads or experts from activations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from anyblock.contract.blocks import BlockConfig
from anyblock.errors import CheckpointError, UsageError

State = dict[str, torch.Tensor | int | float]
"""What a hook has gathered so far: tensors and plain numbers only."""


_PAUSED: ContextVar[bool] = ContextVar("anyblock_hooks_paused", default=False)


@contextmanager
def paused() -> Iterator[None]:
    """Within this scope no statistic takes anything in: for a hook that runs modules again to see what would happen."""
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


@dataclass(frozen=True)
class HookContext:
    """What a hook may know besides its module.

    Args:
        config: the Hugging Face configuration of the language model (the text part of a multimodal one).
        block_config: the architecture of the block that the module belongs to.
        layer_index: the block's index.
        num_batches: how many forward passes the calibration will make.
    """

    config: Any
    block_config: BlockConfig
    layer_index: int
    num_batches: int


class ActivationStatistic(ABC):
    """A forward hook that accumulates sums over batches; it can be saved, resumed, and merged over shards of the data.

    Subclasses keep their sums as float64 CPU tensors in the attributes that `summed` names, so that results do not
    depend on the model's dtype; `merge` and the state are then given. `batches` counts the forward passes seen.
    """

    summed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, module: nn.Module, context: HookContext) -> None:
        self.module = module
        self.context = context
        self.batches = 0

    def attach(self) -> RemovableHandle:
        """Register on the module; remove the returned handle when the calibration is over."""
        return self.module.register_forward_hook(self, with_kwargs=True)

    @torch.no_grad()
    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Take in one forward pass; has the signature of `register_forward_hook(with_kwargs=True)`."""
        if _PAUSED.get():
            return
        self.observe(args, kwargs, output)
        self.batches += 1

    @abstractmethod
    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Add one forward pass to the sums; gradients are off."""

    def state_dict(self) -> State:
        """Return a copy of everything gathered; a hook that loads it continues as if it had never stopped."""
        return {"batches": self.batches, **{name: getattr(self, name).clone() for name in self.summed}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace everything gathered by `state`.

        Raises:
            CheckpointError: a missing or unknown key, or a tensor of another shape.
        """
        current = self.state_dict()
        if missing := sorted(set(current) ^ set(state)):
            raise CheckpointError(
                f"the saved state of {self._where()} differs in {', '.join(missing)}",
                expected=", ".join(sorted(current)),
            )
        for name in self.summed:
            self._check_shape(name, state[name])
        for name in self.summed:
            setattr(self, name, state[name].to(device="cpu", dtype=getattr(self, name).dtype, copy=True))
        self.batches = int(state["batches"])

    def merge(self, other: Self) -> None:
        """Add what `other` gathered from another shard of the data; then this hook is as if it had seen both.

        Raises:
            UsageError: the hooks differ in class or sizes, or the statistic is not a sum over batches.
        """
        self._check_mergeable(other)
        for name in self.summed:
            getattr(self, name).add_(getattr(other, name))
        self.batches += other.batches

    def _check_mergeable(self, other: ActivationStatistic) -> None:
        if type(other) is not type(self):
            raise UsageError(
                f"{self._where()} cannot be merged with {type(other).__name__}", expected=type(self).__name__
            )
        for name in self.summed:
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours.shape != theirs.shape:
                raise UsageError(
                    f"{self._where()}: {name} has the shape {list(ours.shape)} here and {list(theirs.shape)} there",
                    expected="hooks on the same module of the same model",
                )

    def _check_shape(self, name: str, value: Any) -> None:
        wanted = getattr(self, name).shape
        if not isinstance(value, torch.Tensor) or value.shape != wanted:
            found = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise CheckpointError(
                f"the saved state of {self._where()}: {name} is {found}", expected=f"shape {list(wanted)}"
            )

    def _where(self) -> str:
        return f"{type(self).__name__} of layer {self.context.layer_index}"


class ImportanceHook(ActivationStatistic):
    """An activation statistic that ends in one score a unit."""

    @abstractmethod
    def scores(self) -> torch.Tensor:
        """Return the importance of every unit, float32 `[units]`; higher means more important."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the result under the reference's field names; `score` is always one of them."""
