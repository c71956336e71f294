"""By how much a model's results differ where the same is computed in another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import torch

from anyblock_conformance.expect import distance

_FLOAT32: Final = 1e-4
"""What is always allowed: in float32 far above rounding and far below any fault."""
_STEPS: Final = 4
"""How many units in the last place are always allowed in half types, in which one of them is more than `_FLOAT32`."""
_MARGIN: Final = 8
"""How many times the measured spread is allowed in float32: pruned models add up in orders that the few ways tried do not show."""
_HALF_MARGIN: Final = 2
"""The same in half types, in which only whole models that take the same steps are compared."""
_REFUSALS: Final = (ValueError, ImportError, NotImplementedError, RuntimeError, TypeError)


@torch.no_grad()
def tolerance_of(model: Any, ids: torch.Tensor) -> float:
    """Return how far apart two ways to compute a model's function may be, as a share of the largest logit.

    It follows from the dtype (see `least_tolerance`) and from the model's own spread, measured in its own dtype: its usual
    kernels (sdpa, grouped experts) next to eager attention and one expert at a time, and all sequences at once next to each
    sequence alone.

    Args:
        model: its weights and its choice of kernels are as before afterwards.
        ids: tokens, [batch, length].
    """
    expected = _logits(model, ids)
    found = [distance(torch.cat([_logits(model, row[None]) for row in ids]), expected)]
    for choose in ("set_attn_implementation", "set_experts_implementation"):
        with suppress(*_REFUSALS), _eager(model, choose):
            found.append(distance(_logits(model, ids), expected))
    margin = _HALF_MARGIN if model.dtype.itemsize < 4 else _MARGIN
    return max([least_tolerance(model.dtype), *(margin * gap for gap in found if gap < float("inf"))])


def least_tolerance(dtype: torch.dtype) -> float:
    """Return what is allowed in a dtype however small the measured spread is, as a share of the largest logit."""
    return max(_FLOAT32, _STEPS * torch.finfo(dtype).eps if dtype.itemsize < 4 else 0.0)


@contextmanager
def _eager(model: Any, choose: str) -> Iterator[None]:
    """Let a model compute with plain operations within this scope."""
    setter: Callable[[str], None] = getattr(model, choose, lambda _: None)
    before = getattr(model.config, "_attn_implementation" if "attn" in choose else "_experts_implementation", None)
    setter("eager")
    try:
        yield
    finally:
        if before is not None:
            setter(before)


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]
