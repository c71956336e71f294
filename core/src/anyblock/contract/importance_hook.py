"""`ImportanceHook`: a forward hook on one module that scores channels, heads or experts from activations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from anyblock.contract.blocks import BlockConfig

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
    """A forward hook that accumulates sums over batches.

    Subclasses keep their sums as float64 CPU tensors, so that results do not depend on the model's dtype. `batches` counts
    the forward passes seen.
    """

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

    def _where(self) -> str:
        return f"{type(self).__name__} of layer {self.context.layer_index}"


class ImportanceHook(ActivationStatistic):
    """An activation statistic that ends in one score a unit.

    Attributes:
        for_repair: the scores are meant for units whose linear map is re-fitted after the others are gone. Such a hook is the
            default of a kind that supports it where `pruning.repair.method` is not `none`.
    """

    for_repair: ClassVar[bool] = False

    @abstractmethod
    def scores(self) -> torch.Tensor:
        """Return the importance of every unit, float32 `[units]`; higher means more important."""
