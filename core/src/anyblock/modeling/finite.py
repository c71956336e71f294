"""Numbers that are none: NaN and infinities are found where they first appear, and named, instead of spoiling all that follows.

Both checks read a tensor once and make no copy of it: the smallest and the largest value say everything, as NaN is both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch

from anyblock.errors import CheckpointError, NotFiniteError

_CHECKED: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TRY: Final = "try dtype=bfloat16 or dtype=float32, whose numbers reach further"


def require_finite_weights(tensors: Mapping[str, torch.Tensor], *, dtype: torch.dtype, where: str) -> None:
    """Check that every floating-point tensor holds finite numbers, and none that `dtype` cannot hold.

    Args:
        tensors: by checkpoint name; types that are not for computing (float8 and the like) are not looked at.
        dtype: what the model computes in.
        where: names the file or group.

    Raises:
        CheckpointError: a value is NaN, infinite, or too large for `dtype`; names the tensor.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _CHECKED or not tensor.numel():
            continue
        low, high = _range(tensor)
        if not _is_finite(low, high):
            bad = int(tensor.numel() - tensor.isfinite().sum())
            raise CheckpointError(
                f"{where}: tensor {name} holds {bad:,} of {tensor.numel():,} values that are NaN or infinite",
                expected="finite weights",
                hint="download or convert the checkpoint again",
            )
        limit = torch.finfo(dtype).max
        if max(-low, high) > limit:
            raise CheckpointError(
                f"{where}: tensor {name} holds {max(-low, high):.4g}, and {dtype} ends at {limit:.4g}", hint=_TRY
            )


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether every number of these floating-point tensors is finite."""
    return all(_is_finite(*_range(tensor)) for tensor in tensors if tensor.dtype in _CHECKED and tensor.numel())


def finite_or_none(value: float) -> float | None:
    """Return the number, or None, which JSON can hold, in place of NaN and infinities."""
    return value if math.isfinite(value) else None


def require_finite_output(hidden: torch.Tensor, layer: int) -> None:
    """Check that a layer's output, `[batch, length, hidden]`, holds finite numbers.

    Raises:
        NotFiniteError: names the layer and the dtype.
    """
    if not _is_finite(*_range(hidden)):
        raise NotFiniteError(
            f"the output of layer {layer} in {str(hidden.dtype).removeprefix('torch.')} holds NaN or infinite values",
            expected="finite activations",
            hint=_TRY,
        )


def require_finite_score(value: float, metric: str) -> float:
    """Return a score that is a finite number.

    Args:
        value: the score.
        metric: its name.

    Raises:
        NotFiniteError: it is not finite.
    """
    if not math.isfinite(value):
        raise NotFiniteError(
            f"the score ({metric}) is {value}",
            expected="a finite number",
            hint="try dtype=float32 or dtype=bfloat16; if it stays, the checkpoint holds NaN or infinite weights",
        )
    return value


def require_finite_child(divergence: float | None, dtype: torch.dtype) -> float:
    """Return a child's divergence from its teacher if it is a finite number.

    Raises:
        NotFiniteError: it is not: each part of the child was finite alone, all of them together are not.
    """
    if divergence is None or not math.isfinite(divergence):
        raise NotFiniteError(
            f"the child gives NaN or infinite numbers in {str(dtype).removeprefix('torch.')}",
            expected="a child whose numbers stay finite when all its parts are together",
            hint="set dtype=bfloat16 or dtype=float32, whose numbers reach further, or raise the budget",
        )
    return divergence


def _range(tensor: torch.Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(tensor.detach())
    return float(low), float(high)


def _is_finite(low: float, high: float) -> bool:
    return -float("inf") < low and high < float("inf")
