"""Hooks that are plain sums over tokens: formulas, the reference's numbers, shards, resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.contract.importance_hook import paused
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.importance import (
    HOOKS,
    GramStatistic,
    IndependentChannelContributionHook,
    IndependentKvHeadContributionHook,
    L2NormHook,
    LayerNormContributionHook,
    LinearFitStatistic,
    MambaHeadContributionHook,
)
from safetensors.torch import load_file
from torch import nn

_FEATURES = 24


def _batches(count: int = 6, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 5 + index % 3, _FEATURES, generator=generator) for index in range(count)]


def _linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(_FEATURES, 10).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_channel_scores_follow_the_formula(dtype: torch.dtype, tools: Any) -> None:
    hook = IndependentChannelContributionHook(_linear(dtype), tools.context())
    data = [batch.to(dtype) for batch in _batches()]
    tools.feed(hook, data)
    weight = hook.module.weight.detach().double()
    wanted = weight.norm(dim=0) * sum(batch.double().abs().mean(dim=(0, 1)) for batch in data)
    assert hook.scores().dtype == torch.float32
    torch.testing.assert_close(hook.scores().double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimize_for", ["memory", "latency"])
def test_kv_head_scores_follow_the_formula(optimize_for: Any, dtype: torch.dtype, tools: Any) -> None:
    hook = IndependentKvHeadContributionHook(_linear(dtype), tools.context(), optimize_for=optimize_for)
    data = [batch.to(dtype) for batch in _batches()]
    tools.feed(hook, data)
    weight = hook.module.weight.detach().double()
    wanted = torch.zeros(4, dtype=torch.float64)
    for batch in data:
        for head in range(4):
            columns = slice(head * 6, (head + 1) * 6)
            written = batch.reshape(-1, _FEATURES)[:, columns].double() @ weight[:, columns].t()
            wanted[head] += written.norm(dim=1).mean()
    torch.testing.assert_close(hook.scores().double(), wanted, rtol=1e-5, atol=1e-6)
    assert hook.scores().dtype == torch.float32


@pytest.mark.shared
@pytest.mark.parametrize("case", ["independent_channel_fp32", "kv_heads_memory_fp32", "layernorm_fp32", "l2norm_fp32"])
def test_equals_the_reference(case: str, shared_dir: Path, tools: Any) -> None:
    folder = shared_dir / "golden" / "hooks"
    data = load_file(folder / f"{case}.safetensors")
    described = json.loads((folder / "hooks.json").read_text())["cases"][case]
    hook_class = HOOKS[described["hook"]]
    options: dict[str, Any] = {"optimize_for": "latency"} if "kv" in case else {}
    if case == "layernorm_fp32":
        hook = hook_class(nn.LayerNorm(32), tools.context())
        for index in range(2):
            hook(hook.module, (), {}, data[f"out_of_module.{index}"])
    else:
        size = data["in.0"].shape[-1]
        module = tools.linear(data.get("weight", torch.zeros(3, size)))
        if case == "l2norm_fp32":
            options["batch_first"] = False
        hook = hook_class(module, tools.context(), **options)
        tools.feed(hook, [data[key] for key in sorted(data) if key.startswith("in.")])
    found = {"score": hook.scores()}
    if isinstance(hook, IndependentChannelContributionHook):
        found |= {"weight_norm": hook.weight_norms(), "agg_channel_activations": hook.activations}
    if isinstance(hook, LayerNormContributionHook):
        found["channels_importance_ascending"] = hook.scores().argsort(stable=True)
    for key, value in found.items():
        torch.testing.assert_close(value.double(), data[f"out.{key}"].double(), rtol=1e-5, atol=1e-6)


def test_l2_norm_takes_positions_and_batch_apart(tools: Any) -> None:
    data = _batches()
    first = tools.feed(L2NormHook(_linear(), tools.context()), data)
    second = tools.feed(L2NormHook(_linear(), tools.context(), batch_first=False), [b.transpose(0, 1) for b in data])
    assert torch.equal(first.scores(), second.scores())
    wanted = sum(batch.double().abs().mean(dim=1).square().sum(dim=0) for batch in data)
    torch.testing.assert_close(first.scores().double(), torch.as_tensor(wanted).sqrt(), rtol=1e-5, atol=1e-6)


def test_an_input_given_by_keyword_is_seen(tools: Any) -> None:
    data = _batches()
    first = tools.feed(IndependentChannelContributionHook(_linear(), tools.context()), data)
    second = IndependentChannelContributionHook(first.module, tools.context())
    handle = second.attach()
    for batch in data:
        first.module(input=batch)
    handle.remove()
    assert torch.equal(first.scores(), second.scores())


def test_nothing_is_taken_in_while_paused_or_with_gradients(tools: Any) -> None:
    hook = IndependentChannelContributionHook(_linear(), tools.context())
    with paused():
        tools.feed(hook, _batches())
    assert hook.batches == 0
    assert not hook.activations.any()
    tools.feed(hook, [batch.requires_grad_() for batch in _batches()])
    assert not hook.activations.requires_grad
    assert hook.batches == 6


def test_gram_parts_are_split_by_batch(tools: Any) -> None:
    data = _batches(7)
    hook = tools.feed(GramStatistic(_linear(), tools.context(), held_out_every=3, dtype=torch.float64), data)
    tokens = [batch.reshape(-1, _FEATURES).double() for batch in data]
    fit = torch.cat([part for index, part in enumerate(tokens) if index % 3 != 2])
    held_out = torch.cat([part for index, part in enumerate(tokens) if index % 3 == 2])
    for moments, part in ((hook.fit, fit), (hook.held_out, held_out)):
        assert moments.tokens == len(part)
        torch.testing.assert_close(moments.inputs, part.t() @ part)


def test_moments_of_outputs(tools: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(_FEATURES, _FEATURES), nn.Tanh())
    data = _batches(4)
    hook = LinearFitStatistic(module, tools.context(), held_out_every=0, dtype=torch.float64)
    tools.feed(hook, data)
    x = torch.cat([batch.reshape(-1, _FEATURES) for batch in data])
    y = module(x).detach().double()
    assert hook.fit.cross is not None
    torch.testing.assert_close(hook.fit.cross, y.t() @ x.double(), rtol=1e-5, atol=1e-5)
    assert hook.fit.outputs == pytest.approx(float(y.square().sum()), rel=1e-5)


def test_moments_need_held_out_batches(tools: Any) -> None:
    hook = tools.feed(GramStatistic(_linear(), tools.context(), held_out_every=4), _batches(3))
    with pytest.raises(UsageError, match="no batch was held out of 3"):
        _ = hook.held_out
    with pytest.raises(UsageError, match="held_out_every is 1"):
        GramStatistic(_linear(), tools.context(), held_out_every=1)


def test_heads_of_a_mamba_are_scored_as_key_value_heads_are(tools: Any) -> None:
    module, data = _linear(), [torch.randn(2, 5, 24), torch.randn(1, 3, 24)]
    mamba = tools.feed(MambaHeadContributionHook(module, tools.context(mamba=4)), data)
    heads = tools.feed(IndependentKvHeadContributionHook(module, tools.context(heads=4)), data)
    assert torch.equal(mamba.scores(), heads.scores())
    assert mamba.scores().shape == (4,)


def test_modules_that_do_not_fit_are_refused(tools: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="SiLU has no two-dimensional weight"):
        IndependentChannelContributionHook(nn.SiLU(), tools.context())
    with pytest.raises(UsageError, match="an input of 24 for 5 key-value heads"):
        IndependentKvHeadContributionHook(_linear(), tools.context(heads=5))
    with pytest.raises(UsageError, match="an input of 24 for 5 Mamba heads"):
        MambaHeadContributionHook(_linear(), tools.context(mamba=5))
    with pytest.raises(UsageError, match="an input of 24 for None Mamba heads"):
        MambaHeadContributionHook(_linear(), tools.context())
    with pytest.raises(UsageError, match="optimize_for"):
        IndependentKvHeadContributionHook(_linear(), tools.context(), optimize_for="speed")  # type: ignore[arg-type]


def test_every_registered_hook_has_its_own_name() -> None:
    assert all(hook.__name__ == name for name, hook in HOOKS.items())
    assert {"IterativeChannelContributionHook", "RankedChoiceVotingHook", "IndependentKvHeadContributionHook"} <= set(
        HOOKS
    )
