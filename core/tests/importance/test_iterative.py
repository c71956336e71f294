"""The iterative hook: equal to brute force and to the reference, whatever the batches, blocks and types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.errors import UsageError
from anyblock.importance import IterativeChannelContributionHook
from anyblock.importance import iterative as module_under_test
from anyblock.importance.iterative import pruning_schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn


def _brute_force(weight: torch.Tensor, batches: list[torch.Tensor], schedule: list[int], scaled: bool) -> list[int]:
    """Remove one channel at a time for real and measure the error of the output; return the order of removal."""
    removed: list[int] = []
    total = torch.zeros(weight.shape[1], dtype=torch.float64)
    for batch, due in zip(batches, schedule, strict=True):
        x = batch.reshape(-1, batch.shape[-1]).double()
        w = weight.double()
        y = x @ w.t()
        left = x.clone()
        left[:, removed] = 0
        pruned = left @ w.t()
        target = y * (pruned.norm(dim=1, keepdim=True) / (y.norm(dim=1, keepdim=True) + 1e-8)) if scaled else y
        for channel in range(weight.shape[1]):
            if channel in removed:
                continue
            without = left.clone()
            without[:, channel] = 0
            squared = (target - without @ w.t()).square().sum(dim=1) + 1e-8
            total[channel] += squared.sqrt().mean()
        candidates = [c for c in range(weight.shape[1]) if c not in removed]
        removed += sorted(candidates, key=lambda c: (float(total[c]), c))[:due]
        if due:
            total.zero_()
    return removed


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    channels=st.integers(1, 12),
    outputs=st.integers(1, 8),
    num_batches=st.integers(1, 15),
    scaled=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_removing_channels_for_real(
    tools: Any, channels: int, outputs: int, num_batches: int, scaled: bool, bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels, generator=generator)
    offset = 10 * torch.randn(outputs, generator=generator) if bias else None
    batches = [torch.randn(2, 3, channels, generator=generator) for _ in range(num_batches)]
    hook = IterativeChannelContributionHook(
        tools.linear(weight, offset),
        tools.context(num_batches),
        calibration_method="scale_by_magnitude" if scaled else None,
    )
    tools.feed(hook, batches)
    wanted = _brute_force(weight, batches, pruning_schedule(channels, num_batches), scaled)
    assert hook.ascending().tolist() == wanted
    scores = hook.scores()
    assert scores.dtype == torch.float32
    assert scores.argsort().tolist() == wanted


@pytest.mark.shared
@pytest.mark.parametrize("case", ["iterative_plain_fp32", "iterative_scaled_fp32", "iterative_one_per_iter_fp32"])
def test_equals_the_reference(case: str, shared_dir: Path, tools: Any) -> None:
    folder = shared_dir / "golden" / "hooks"
    data = load_file(folder / f"{case}.safetensors")
    described = json.loads((folder / "hooks.json").read_text())["cases"][case]
    batches = described["pruning_iters"]
    linear = tools.linear(data["weight"])
    hook = IterativeChannelContributionHook(
        linear, tools.context(batches), calibration_method=described["calibration_method"]
    )
    assert hook.schedule == data["out.schedule"].tolist()
    for index in range(batches):
        left = torch.ones(len(hook.contribution), dtype=torch.bool)
        left[hook.removed] = False
        summed: list[torch.Tensor] = []
        original = hook._add

        def add(*args: Any, original: Any = original, summed: list[torch.Tensor] = summed, **kwargs: Any) -> None:
            original(*args, **kwargs)
            summed[:] = [hook.contribution.clone()]

        hook._add = add  # type: ignore[method-assign]
        hook(linear, (data[f"in.{index}"],), {}, data[f"linear_out.{index}"])
        hook._add = original  # type: ignore[method-assign]
        wanted = data[f"mid.agg_at_prune.{index}"].double()
        torch.testing.assert_close(summed[0][left], wanted[left], rtol=2e-5, atol=1e-6)
        assert hook.removed.tolist() == data[f"mid.pruned_after.{index}"].tolist()
    assert hook.scores().tolist() == data["out.score"].tolist()
    assert hook.ascending().tolist() == data["out.channels_importance_ascending"].tolist()


@pytest.mark.shared
def test_schedules_equal_the_reference(shared_dir: Path) -> None:
    schedules = json.loads((shared_dir / "golden" / "hooks" / "hooks.json").read_text())["pruning_schedules"]
    assert len(schedules) == 10
    for case in schedules:
        assert pruning_schedule(case["num_channels"], case["pruning_iters"]) == case["schedule"]


@settings(deadline=None, derandomize=True)
@given(channels=st.integers(1, 500), batches=st.integers(1, 500))
def test_a_schedule_removes_everything_evenly(channels: int, batches: int) -> None:
    schedule = pruning_schedule(channels, batches)
    assert (len(schedule), sum(schedule)) == (batches, channels)
    assert max(schedule) - min(schedule) <= 1


def _run(tools: Any, dtype: torch.dtype = torch.float32, batches: int = 6, **options: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(16, 40, generator=generator).to(dtype)
    data = [torch.randn(3, 11, 40, generator=generator).to(dtype) for _ in range(batches)]
    hook = IterativeChannelContributionHook(tools.linear(weight), tools.context(batches), **options)
    return tools.feed(hook, data), data


@pytest.mark.parametrize("method", [None, "scale_by_magnitude"])
@pytest.mark.parametrize(("tokens", "channels"), [(1, 1), (7, 9), (33, 40), (100, 8)])
def test_the_size_of_blocks_does_not_matter(
    tokens: int, channels: int, method: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = _run(tools, calibration_method=method)
    monkeypatch.setattr(module_under_test, "_TOKENS", tokens)
    monkeypatch.setattr(module_under_test, "_CHANNELS", channels)
    found, _ = _run(tools, calibration_method=method)
    assert found.ascending().tolist() == wanted.ascending().tolist()


@pytest.mark.parametrize("method", [None, "scale_by_magnitude"])
def test_low_precision_weights_are_summed_in_higher_precision(method: Any, tools: Any) -> None:
    low, data = _run(tools, torch.bfloat16, calibration_method=method)
    weight = low.module.weight.detach().float()
    high = IterativeChannelContributionHook(tools.linear(weight), tools.context(6), calibration_method=method)
    tools.feed(high, [batch.float() for batch in data])
    assert low.contribution.dtype == torch.float64
    if method is None:
        # Without scaling the module's own, rounded output is not looked at, so nothing is lost.
        assert low.ascending().tolist() == high.ascending().tolist()
    rank = torch.corrcoef(torch.stack([low.scores(), high.scores()]))[0, 1]
    assert rank > 0.99


def test_other_numbers_of_batches_than_planned_are_fine(tools: Any) -> None:
    complete, data = _run(tools)
    hook = IterativeChannelContributionHook(complete.module, tools.context(6))
    tools.feed(hook, data[:4])
    early = hook.removed.tolist()
    assert early == complete.ascending()[: len(early)].tolist()
    assert sorted(hook.ascending().tolist()) == list(range(40))
    assert hook.ascending()[: len(early)].tolist() == early
    tools.feed(hook, data[4:])
    assert hook.ascending().tolist() == complete.ascending().tolist()
    tools.feed(hook, data)
    assert hook.ascending().tolist() == complete.ascending().tolist()


def test_transposed_weights_give_the_same(tools: Any) -> None:
    from transformers.pytorch_utils import Conv1D

    wanted, data = _run(tools, calibration_method="scale_by_magnitude")
    module = Conv1D(16, 40)
    module.weight = nn.Parameter(wanted.module.weight.detach().t().contiguous())
    found = IterativeChannelContributionHook(module, tools.context(6), calibration_method="scale_by_magnitude")
    assert tools.feed(found, data).ascending().tolist() == wanted.ascending().tolist()


def test_bad_options_are_refused(tools: Any) -> None:
    with pytest.raises(UsageError, match="calibration_method"):
        IterativeChannelContributionHook(
            nn.Linear(4, 4),
            tools.context(),
            calibration_method="x",  # type: ignore[arg-type]
        )
    with pytest.raises(UsageError, match="num_batches is 0"):
        IterativeChannelContributionHook(nn.Linear(4, 4), tools.context(0))
