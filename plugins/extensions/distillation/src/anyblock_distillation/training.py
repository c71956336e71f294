"""What both kinds of distillation share: the learning rate, the precision of training, and that numbers are finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from anyblock.errors import NotFiniteError
from torch import nn

PARTIAL: Final = ".partial"
"""Where a stage keeps what it has done so far, in its folder."""
WARM_UP: Final = 0.05
"""Share of the steps over which the learning rate rises."""


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast is trained.

    Attributes:
        epochs: passes over the text, at most.
        learning_rate: of AdamW, at its height; see `learning_rate_at`.
        batch_size: sequences of one step.
        seed: of the order of steps.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int = 0

    def optimizer(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Return AdamW without weight decay, which would pull a trained child away from its teacher."""
        return torch.optim.AdamW(parameters.values(), lr=self.learning_rate, weight_decay=0.0)


def steps_of(ids: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Cut sequences of token ids, [sequences, tokens], into steps of so many sequences."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def epoch_order(count: int, epoch: int, seed: int) -> list[int]:
    """Return the order of an epoch's steps; it depends on nothing but the arguments, so that a resumed run repeats it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def learning_rate_at(step: int, total: int, highest: float) -> float:
    """Return the rate of a step: a linear rise over the first steps, then a cosine down to 0 (Loshchilov and Hutter 2017).

    A scheduler of torch would have a state of its own to keep; this depends on the step alone.
    """
    rise = max(1, round(total * WARM_UP))
    if step < rise:
        return highest * (step + 1) / rise
    return highest * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise))) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give an optimizer the rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def take_step(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Let the optimizer make a step along the gradients of these parameters.

    Raises:
        NotFiniteError: the gradients' norm is not finite; the weights are left as they were.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters.values() if p.grad is not None])
    if not bool(norm.isfinite()):
        raise NotFiniteError("the gradients of a training step are not finite", hint="lower the learning rate")
    optimizer.step()


@contextmanager
def as_stored(
    parameters: Mapping[str, nn.Parameter], dtypes: Mapping[str, torch.dtype]
) -> Iterator[dict[str, torch.Tensor]]:
    """Give the values as a checkpoint will hold them; meanwhile the parameters have them too, so that these are judged.

    Raises:
        NotFiniteError: a value is not finite, or too large for its dtype.
    """
    exact = {name: parameter.data for name, parameter in parameters.items()}
    values = {name: value.to(dtypes[name], copy=True) for name, value in exact.items()}
    if not all_finite(values.values()):
        raise NotFiniteError("trained weights are not finite in the checkpoint's dtype", hint="lower the learning rate")
    try:
        for name, parameter in parameters.items():
            parameter.data = values[name].to(parameter.dtype)
        yield values
    finally:
        for name, parameter in parameters.items():
            parameter.data = exact[name]


def mixed_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which float32 parameters compute in the model's own dtype."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether no tensor holds NaN or infinity."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def require_finite(value: float, what: str) -> float:
    """Return a number that is finite.

    Raises:
        NotFiniteError: it is not; `what` names it.
    """
    if not math.isfinite(value):
        raise NotFiniteError(f"the {what} is {value}", expected="a finite number", hint="lower the learning rate")
    return value
