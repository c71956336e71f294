"""The order of the optimal brain surgeon: equal to removing channels for real and re-fitting the others each time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anyblock.errors import UsageError
from anyblock.importance import IterativeChannelContributionHook, OptimalBrainSurgeonHook
from anyblock.importance.statistics import GramStatistic
from anyblock.pruning.least_squares import repair_removal
from hypothesis import given, settings
from hypothesis import strategies as st


def _brute_force(weight: torch.Tensor, inputs: torch.Tensor, ridge: float) -> list[int]:
    """Remove one channel at a time, each time the one without which a re-fitted map errs least."""
    x, w = inputs.double(), weight.double()
    gram = x.t() @ x
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    left, removed = list(range(weight.shape[1])), list[int]()
    while left:
        errors = []
        for channel in left:
            stay = [other for other in left if other != channel]
            # The map of all channels, written with those that stay; the error is measured with the ridge in it.
            fitted = w @ gram[:, stay] @ torch.linalg.inv(gram[stay][:, stay]) if stay else w[:, :0]
            full = w.clone()
            full[:, stay] -= fitted
            errors.append(float(((full @ gram) * full).sum()))
        removed.append(left.pop(min(range(len(left)), key=lambda place: errors[place])))
    return removed


@settings(deadline=None, derandomize=True, max_examples=40)
@given(channels=st.integers(1, 10), outputs=st.integers(1, 6), tokens=st.integers(2, 40), seed=st.integers(0, 10**6))
def test_equals_removing_channels_for_real(tools: Any, channels: int, outputs: int, tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels, generator=generator)
    mixed = torch.randn(channels, channels, generator=generator)
    inputs = torch.randn(2, tokens, channels, generator=generator) @ mixed
    hook = OptimalBrainSurgeonHook(tools.linear(weight), tools.context(2), ridge=1e-2)
    tools.feed(hook, list(inputs[:, None]))
    assert hook.ascending().tolist() == _brute_force(weight, inputs.flatten(0, 1), 1e-2)
    assert hook.scores().argsort().tolist() == hook.ascending().tolist()


def test_silent_and_useless_channels_go_first_whatever_their_weights(tools: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 12, generator=generator)
    weight[:, 3] = 0
    weight[:, 7] = 1e3
    inputs = torch.randn(1, 50, 12, generator=generator)
    inputs[..., 7] = 0
    hook = OptimalBrainSurgeonHook(tools.linear(weight), tools.context(1))
    tools.feed(hook, [inputs])
    assert set(hook.ascending()[:2].tolist()) == {3, 7}


def test_nothing_was_seen_at_all(tools: Any) -> None:
    hook = OptimalBrainSurgeonHook(tools.linear(torch.ones(3, 5)), tools.context(1))
    tools.feed(hook, [torch.zeros(1, 4, 5)])
    assert sorted(hook.ascending().tolist()) == list(range(5))


def test_a_repaired_map_errs_less_than_in_the_iterative_order(tools: Any) -> None:
    """On correlated inputs, which is what the hook is for; both orders are repaired in the same way."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(32, 256, generator=generator)
    basis = torch.randn(60, 256, generator=generator)
    batches = [
        torch.randn(1, 128, 60, generator=generator) @ basis + 0.3 * torch.randn(1, 128, 256, generator=generator)
        for _ in range(16)
    ]
    errors = {}
    for hook_class in (OptimalBrainSurgeonHook, IterativeChannelContributionHook):
        module = tools.linear(weight)
        hook, statistic = hook_class(module, tools.context(16)), GramStatistic(module, tools.context(16))
        tools.feed(hook, batches)
        tools.feed(statistic, batches)
        kept = hook.scores().argsort(descending=True)[:128]
        errors[hook_class] = repair_removal(weight, kept, statistic.fit, statistic.held_out).error
    assert errors[OptimalBrainSurgeonHook] < 0.9 * errors[IterativeChannelContributionHook]


def test_a_ridge_of_zero_is_refused(tools: Any) -> None:
    with pytest.raises(UsageError, match="ridge is 0"):
        OptimalBrainSurgeonHook(tools.linear(torch.ones(3, 5)), tools.context(1), ridge=0)
