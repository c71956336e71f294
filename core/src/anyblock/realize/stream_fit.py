"""Fitting the output map of a half so that the residual stream after it is the teacher's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from anyblock.candidates.sources import OutputMap
from anyblock.contract.candidate_source import LinearFit
from anyblock.contract.linear_inputs import as_tokens, input_tokens
from anyblock.importance.statistics import Moments
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.pruning.least_squares import fit_linear

_ADDED: Final = 0.05  # rounding of bfloat16 stays far below, and a stream that is normed or scaled far above
_EPSILON: Final = 1e-12


@torch.no_grad()
def fit_to_stream(
    engine: LayerwiseModel,
    index: int,
    layer: nn.Module,
    output: OutputMap,
    hidden: Iterable[torch.Tensor],
    targets: Iterable[torch.Tensor],
    batches: Sequence[Batch],
    tensors: Mapping[str, torch.Tensor],
    *,
    held_out_every: int,
) -> tuple[dict[str, torch.Tensor], LinearFit] | None:
    """Re-fit the map that ends a layer, or the part of a layer that is run, to what the teacher's stream is after it.

    With `x` the map's inputs in the child and `t` how far the child's stream is from the teacher's after the map, the weight is
    changed by `Δ = (Σ w t xᵀ) (Σ w x xᵀ + λI)⁻¹`; `λ` is chosen on batches that are held out. So the map makes up for what its
    own half lost *and* for what the layers before it lost. A token's weight `w` is the inverse of the squared size of the
    teacher's stream, since the next norm divides by that size.

    Args:
        engine: runs the layer.
        index: its number.
        layer: the child's layer up to and including the half: of an attention without the ffn.
        output: the half's output map.
        hidden: the child's hidden states before the layer, [batch, length, hidden] each.
        targets: the teacher's after the half.
        batches: of the same text.
        tensors: the half's tensors by checkpoint name.
        held_out_every: every n-th batch is held out.

    Returns:
        The half's tensors and the fit, whose errors are relative to the size of what the layer has to add to the stream; None
        where the map's result is not added to the stream as it is, but normed or scaled before.
    """
    module = layer.get_submodule(output.module)
    seen: list[torch.Tensor] = []
    sums: list[_Sums] = [_Sums(), _Sums()]
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(input_tokens(args, kwargs)), with_kwargs=True
    )
    try:
        for position, (states, wanted, batch) in enumerate(zip(hidden, targets, batches, strict=True)):
            seen.clear()
            found = engine.run(index, states, batch, layer=layer)
            if position == 0 and not _is_added(engine, index, layer, module, states, batch, found):
                return None
            held_out = position % held_out_every == held_out_every - 1
            sums[held_out].add(seen[0], as_tokens(found), as_tokens(wanted), as_tokens(states))
    finally:
        handle.remove()
    fit, judge = (part.moments() for part in sums)
    fitted = fit_linear(fit, judge)
    size = sums[1].size or 1.0
    errors = (float(judge.outputs or 0.0) / size, fitted.error * float(judge.outputs or 0.0) / size)
    result = dict(tensors)
    if fitted.ridge is not None:
        weight = tensors[output.tensor]
        change = fitted.weight.movedim(1, output.inputs).to(weight.device)
        result[output.tensor] = (weight.double() + change).to(weight.dtype)
    return result, LinearFit(result[output.tensor], fitted.ridge, *errors)


class _Sums:
    """Weighted sums over tokens of a map's inputs and of what the stream lacks after it."""

    def __init__(self) -> None:
        self.gram: Any = 0
        self.cross: Any = 0
        self.square = self.size = 0.0
        self.tokens = 0

    def add(self, inputs: torch.Tensor, found: torch.Tensor, wanted: torch.Tensor, before: torch.Tensor) -> None:
        """Add the tokens of one batch: inputs [tokens, in] and hidden states [tokens, hidden]."""
        target = wanted.float()
        scale = (target.norm(dim=1, keepdim=True) + _EPSILON).reciprocal()
        x, t = inputs.float() * scale, (target - found.float()) * scale
        self.gram += (x.t() @ x).cpu()
        self.cross += (t.t() @ x).cpu()
        self.square += float(t.square().sum(dtype=torch.float64))
        self.size += float(((target - before.float()) * scale).square().sum(dtype=torch.float64))
        self.tokens += len(x)

    def moments(self) -> Moments:
        return Moments(self.gram, self.tokens, self.cross, self.square)


def _is_added(
    engine: LayerwiseModel,
    index: int,
    layer: nn.Module,
    module: nn.Module,
    states: torch.Tensor,
    batch: Batch,
    found: torch.Tensor,
) -> bool:
    """Return whether a change of the module's result is seen as it is in the layer's."""
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(found.shape[-1], generator=generator).to(found) * found.float().square().mean().sqrt().to(
        found
    )
    handle = module.register_forward_hook(lambda _, __, output: output + change)
    try:
        moved = engine.run(index, states, batch, layer=layer)
    finally:
        handle.remove()
    off = (moved.float() - found.float() - change.float()).norm(dim=-1)
    return bool(off.median() <= _ADDED * change.float().norm())
