"""Decoding with a cache, step by step."""

from __future__ import annotations

from typing import Any, Final

import torch
from anyblock.costs.probed_cache import run_with_cache

from anyblock_conformance.expect import distance

_STEPS: Final = (5, 1, 1, 2, 1, 1, 1)
_SINGLE_STEPS: Final = (5, *[1] * 7)


@torch.no_grad()
def cached_logits(model: Any, ids: torch.Tensor, steps: tuple[int, ...]) -> torch.Tensor:
    """Return the logits `[batch, length, vocabulary]`, computed in steps of so many tokens with a cache.

    Positions are left to the model, which counts them from its cache, as in `generate`.
    """
    found, begin, cache = [], 0, None
    for step in steps:
        output, cache = run_with_cache(model, ids[:, begin : begin + step], cache)
        found.append(output.logits)
        begin += step
    return torch.cat(found, dim=1)


@torch.no_grad()
def workable_steps(model: Any, ids: torch.Tensor, tolerance: float) -> tuple[int, ...] | None:
    """Return in which steps a stock model decodes with a cache: one of several tokens among them if it takes such a one.

    Some take one token at a time after a prompt: others are refused (CPM-Ant, ProphetNet) or computed otherwise
    (RecurrentGemma). Where no steps give what the model computes without a cache, those that it takes are returned; None
    of a model that does not decode at all.

    Args:
        model: the model.
        ids: tokens, [batch, length].
        tolerance: how far logits may be apart, as a share of the largest.
    """
    taken, expected = None, model(input_ids=ids, use_cache=False).logits
    for steps in (_STEPS, _SINGLE_STEPS):
        try:
            found = cached_logits(model, ids, steps)
        except (RuntimeError, IndexError, ValueError, AssertionError):
            continue
        taken = taken or steps
        if distance(found, expected) <= tolerance:
            return steps
    return taken


@torch.no_grad()
def real_cache(model: Any, ids: torch.Tensor) -> Any:
    """Return the cache after a forward pass on these tokens; None of a model that has none."""
    return run_with_cache(model, ids)[1]


@torch.no_grad()
def greedy(model: Any, ids: torch.Tensor, *, new: int, use_cache: bool) -> list[list[int]]:
    """Return the tokens that `generate` appends, without sampling and without an early end."""
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
        eos_token_id=None,
    )
    return output[:, ids.shape[1] :].tolist()  # type: ignore[no-any-return]
