"""Assertions whose messages carry the values, wherever and however the suite is installed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch


class CheckFailedError(AssertionError):
    """The adapter does not do what a check asks for; the message says what was found and what was expected.

    Attributes:
        raised: what was raised meanwhile, if that is all that the check found; empty where it found anything itself.
    """

    def __init__(self, message: str, raised: Sequence[Exception] = ()) -> None:
        super().__init__(message)
        self.raised = tuple(raised)


class NotApplicableError(Exception):
    """A check has no meaning for this subject; the message says why."""


def fail(message: str, raised: Sequence[Exception] = ()) -> NoReturn:
    """Fail the check with a message that has the values in it; see `CheckFailedError.raised`."""
    raise CheckFailedError(message, raised)


def that(condition: bool, message: str) -> None:
    """Fail unless the condition holds."""
    if not condition:
        fail(message)


def equal(found: Any, expected: Any, what: str) -> None:
    """Fail unless two plain values are equal."""
    if found != expected:
        fail(f"{what} is {_shown(found)}, expected {_shown(expected)}")


def nothing(faults: Iterable[str], what: str, raised: Sequence[Exception] = ()) -> None:
    """Fail if there are faults; the first of them are listed.

    Args:
        faults: what was found.
        what: what there should be none of.
        raised: those of the faults that are errors.
    """
    listed = list(faults)
    if listed:
        more = f"\n  and {len(listed) - 8} more" if len(listed) > 8 else ""
        fail(f"{what}:\n  " + "\n  ".join(listed[:8]) + more, raised if len(raised) == len(listed) else ())


def same(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Fail unless two tensors have the same dtype, shape and bits."""
    _same_form(found, expected, what)
    if found.dtype != expected.dtype:
        fail(f"{what} is {found.dtype}, expected {expected.dtype}")
    a, b = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (found, expected))
    if not torch.equal(a, b):
        fail(f"{what} differs: {_difference(found, expected)}")


def identity(tensor: torch.Tensor) -> str:
    """Return dtype, shape and a digest of the bits: what `same` compares, of a tensor that need not stay in memory."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(content).hexdigest()[:16]}"


def close(found: torch.Tensor, expected: torch.Tensor, what: str, *, tolerance: float) -> None:
    """Fail unless two tensors agree up to `tolerance` of the expected one's largest value; see `tolerance_of`."""
    _same_form(found, expected, what)
    if not distance(found, expected) <= tolerance:
        fail(f"{what} differs: {_difference(found, expected)}, allowed {tolerance:g} of the largest")


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference over the expected tensor's largest absolute value; not a number counts as infinite."""
    gap = (found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30)
    return float(gap) if torch.isfinite(gap) else float("inf")


def _same_form(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    if found.shape != expected.shape:
        fail(f"{what} has shape {list(found.shape)}, expected {list(expected.shape)}")
    if found.is_meta != expected.is_meta:
        fail(f"{what} is on {found.device}, expected {expected.device}")


def _difference(found: torch.Tensor, expected: torch.Tensor) -> str:
    gap = (found.double() - expected.double()).abs().reshape(-1)
    if not torch.isfinite(gap).all():
        return f"{int((~torch.isfinite(gap)).sum())} of {gap.numel()} values are not finite"
    worst = int(gap.argmax())
    a, b = float(found.reshape(-1)[worst]), float(expected.reshape(-1)[worst])
    count = int((gap > 0).sum())
    largest = float(expected.double().abs().max())
    return (
        f"{count} of {gap.numel()} values, at most by {float(gap[worst]):.4g} "
        f"(found {a:.6g}, expected {b:.6g}, largest {largest:.4g})"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
