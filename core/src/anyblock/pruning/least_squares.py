"""Repairing a linear map after some of its inputs were removed, by least squares on calibration activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from anyblock.contract.candidate_source import LinearFit
from anyblock.errors import UsageError
from anyblock.importance.statistics import Moments

RIDGES: Final = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""The ridges that are tried, relative to the mean diagonal entry of the inputs' Gram matrix."""


def repair_removal(
    weight: torch.Tensor,
    kept: torch.Tensor,
    fit: Moments,
    held_out: Moments,
    *,
    ridges: Sequence[float] = RIDGES,
) -> LinearFit:
    """Re-fit the kept columns of a linear map so that they make up for the removed ones.

    With `C = Σ x xᵀ`, kept columns `S` and removed ones `R`, the fitted weight is
    `W' = W_S + W_R C[R,S] (C[S,S] + λI)⁻¹`, the minimiser of `Σ ‖W x - W' x_S‖² + λ ‖W' - W_S‖²`. Without `λ` that is
    ordinary least squares, `W C[:,S] C[S,S]⁻¹`; a large `λ` leads back to plain removal, so no `λ` does worse than that
    on the tokens of `fit`. The `λ` with the smallest error on `held_out` is taken, and plain removal where none helps.
    Solved by Cholesky in float64.

    Args:
        weight: `[out, in]`.
        kept: the inputs that stay, int64 `[kept]`, in the order that the result is to have.
        fit: moments of the inputs to fit on.
        held_out: moments of other tokens' inputs.
        ridges: the values of `λ` to try, relative to the mean diagonal entry of `C[S,S]`.

    Returns:
        The fit; its weight is `[out, kept]`, in the type of `weight`.

    Raises:
        UsageError: sizes that do not agree, or moments of no tokens.
    """
    full = weight.detach().to(device="cpu", dtype=torch.float64)
    for moments in (fit, held_out):
        _check(moments, full.shape[1])
    left = torch.ones(full.shape[1], dtype=torch.bool)
    left[kept] = False
    removed = left.nonzero().squeeze(1)

    def problem(moments: Moments) -> _Problem:
        """Return the least-squares problem of what the removed units gave."""
        lost = full[:, removed]
        gram = _block(moments.inputs, removed, removed)
        return _Problem(
            gram=_block(moments.inputs, kept, kept),
            cross=lost @ _block(moments.inputs, removed, kept),
            square=float(((lost @ gram) * lost).sum()),
        )

    # Some columns at a time: the moments are the largest thing here, and a copy of them in float64 twice as large.
    parts = [slice(start, start + 512) for start in range(0, full.shape[1], 512)]
    total = sum(float(((full @ held_out.inputs[:, part].double()) * full[:, part]).sum()) for part in parts)
    change, ridge, error, plain = _best(problem(fit), problem(held_out), ridges if len(removed) else ())
    result = weight.detach().index_select(1, kept.to(weight.device))
    if change is not None:
        result = (full[:, kept] + change).to(device=weight.device, dtype=weight.dtype)
    return LinearFit(result, ridge, plain / total if total else 0.0, error / total if total else 0.0)


def fit_linear(
    fit: Moments, held_out: Moments, *, start: torch.Tensor | None = None, ridges: Sequence[float] = RIDGES
) -> LinearFit:
    """Fit one matrix from inputs to outputs, to stand in for a whole subblock.

    With `C = Σ x xᵀ` it is `W = W0 + (Σ y xᵀ - W0 C) (C + λI)⁻¹`, the minimiser of `Σ ‖y - W x‖² + λ ‖W - W0‖²`. The `λ`
    with the smallest error on `held_out` is taken, and `W0` where none does better.

    Args:
        fit: moments with outputs (`LinearFitStatistic.fit`).
        held_out: the same of other tokens.
        start: `W0`, `[out, in]`; None is the zero matrix.
        ridges: see `repair_removal`.

    Returns:
        The fit; its weight is `[out, in]`, float64, and its plain error is that of `W0`.

    Raises:
        UsageError: sizes that do not agree, moments of no tokens, or without outputs.
    """

    def problem(moments: Moments) -> _Problem:
        """Return the least-squares problem of the whole map, or of its distance from `origin`."""
        _check(moments, fit.inputs.shape[0])
        if moments.cross is None or moments.outputs is None:
            raise UsageError("moments without outputs", expected="moments that LinearFitStatistic collected")
        gram, cross = moments.inputs.double(), moments.cross.double()
        whole = _Problem(gram, cross, moments.outputs)
        return whole if origin is None else _Problem(gram, cross - origin @ gram, whole.error(origin))

    origin = None if start is None else start.to(device="cpu", dtype=torch.float64)
    judge = problem(held_out)
    change, ridge, error, plain = _best(problem(fit), judge, ridges)
    weight = torch.zeros_like(judge.cross) if origin is None else origin
    total = held_out.outputs
    return LinearFit(
        weight if change is None else weight + change,
        ridge,
        plain / total if total else 0.0,
        error / total if total else 0.0,
    )


@dataclass(frozen=True)
class _Problem:
    """Approximate a target `t` by `D x`: `gram` is `Σ x xᵀ`, `cross` is `Σ t xᵀ`, `square` is `Σ ‖t‖²`."""

    gram: torch.Tensor
    cross: torch.Tensor
    square: float

    def error(self, change: torch.Tensor) -> float:
        return max(self.square + float(((change @ self.gram - 2 * self.cross) * change).sum()), 0.0)

    def solve(self, ridge: float) -> torch.Tensor | None:
        """Return `cross (gram + λI)⁻¹`, or None where that is not positive definite."""
        regular = self.gram.clone()
        regular.diagonal().add_(ridge * regular.diagonal().mean())
        factor, info = torch.linalg.cholesky_ex(regular)
        return None if int(info) else torch.cholesky_solve(self.cross.t(), factor).t()


def _best(
    fit: _Problem, judge: _Problem, ridges: Sequence[float]
) -> tuple[torch.Tensor | None, float | None, float, float]:
    """Return the best change, its ridge, its error and the error of no change, all by the judge."""
    best: torch.Tensor | None = None
    best_ridge, best_error = None, judge.square
    for ridge in ridges:
        change = fit.solve(ridge)
        if change is not None and (error := judge.error(change)) < best_error:
            best, best_ridge, best_error = change, ridge, error
    return best, best_ridge, best_error, judge.square


def _block(gram: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return gram[rows][:, columns].to(device="cpu", dtype=torch.float64)


def _check(moments: Moments, size: int) -> None:
    if moments.inputs.shape != (size, size):
        raise UsageError(
            f"the moments are of {moments.inputs.shape[0]} inputs", expected=f"{size} inputs, as the weight has"
        )
    if not moments.tokens:
        raise UsageError("the moments are of no tokens", expected="moments of at least one batch")
