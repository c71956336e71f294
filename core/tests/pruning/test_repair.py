"""Least-squares repair: equal to brute force, and never worse than plain removal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.importance import GramStatistic, HookContext, LinearFitStatistic, Moments
from anyblock.pruning.layouts import dense_mixins, sparse_mixins
from anyblock.pruning.least_squares import fit_linear, repair_removal
from anyblock.pruning.repair_child import repair_child
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

_CONFIG = SimpleNamespace(num_attention_heads=8, hidden_size=24, head_dim=4)


def _moments(x: torch.Tensor) -> Moments:
    return Moments(x.t() @ x, len(x))


def _correlated(tokens: int, size: int, seed: int, rank: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank, size, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    noise = torch.randn(tokens, size, generator=generator, dtype=torch.float64)
    return torch.randn(tokens, rank, generator=generator, dtype=torch.float64) @ mixing + 0.3 * noise


def _squared(x: torch.Tensor, weight: torch.Tensor, kept: torch.Tensor, fitted: torch.Tensor) -> float:
    return float((x @ weight.t() - x[:, kept] @ fitted.t()).square().sum())


@settings(deadline=None, derandomize=True, max_examples=40)
@given(size=st.integers(2, 12), keep=st.integers(1, 12), seed=st.integers(0, 10_000), data=st.data())
def test_no_ridge_is_ordinary_least_squares(size: int, keep: int, seed: int, data: Any) -> None:
    kept = torch.tensor(data.draw(st.permutations(range(size)))[: min(keep, size - 1)])
    x = _correlated(80, size, seed)
    weight = torch.randn(5, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = repair_removal(weight, kept, _moments(x), _moments(x), ridges=[0.0])
    wanted = torch.linalg.lstsq(x[:, kept], x @ weight.t()).solution.t()
    torch.testing.assert_close(found.weight, wanted, rtol=1e-8, atol=1e-8)
    assert found.ridge == 0.0


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    size=st.integers(2, 12),
    keep=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    ridge=st.sampled_from([0.0, 1e-8, 1e-3, 0.1, 1.0, 100.0]),
    tokens=st.integers(1, 60),
    data=st.data(),
)
def test_repair_never_raises_the_error_on_its_own_tokens(
    size: int, keep: int, seed: int, ridge: float, tokens: int, data: Any
) -> None:
    kept = torch.tensor(data.draw(st.permutations(range(size)))[: min(keep, size)])
    x = _correlated(tokens, size, seed)
    weight = torch.randn(5, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = repair_removal(weight, kept, _moments(x), _moments(x), ridges=[ridge])
    before = _squared(x, weight, kept, weight[:, kept])
    after = _squared(x, weight, kept, found.weight)
    assert after <= before * (1 + 1e-9) + 1e-9
    total = float((x @ weight.t()).square().sum())
    assert found.plain_error == pytest.approx(before / total, rel=1e-6, abs=1e-9)
    assert found.error == pytest.approx(after / total, rel=1e-6, abs=1e-9)
    assert found.error <= found.plain_error


@pytest.mark.parametrize("tokens", [8, 2000])
def test_held_out_tokens_choose_the_ridge(tokens: int) -> None:
    size, kept = 16, torch.arange(0, 16, 2)
    weight = torch.randn(6, size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    fit, held_out = _correlated(tokens, size, 1), _correlated(1000, size, 2)
    ridges = (1e-6, 1e-2, 1.0, 100.0)
    found = repair_removal(weight, kept, _moments(fit), _moments(held_out), ridges=ridges)
    errors = {}
    for ridge in ridges:
        gram = fit[:, kept].t() @ fit[:, kept]
        gram += ridge * gram.diagonal().mean() * torch.eye(len(kept), dtype=torch.float64)
        odd = torch.arange(1, 16, 2)
        change = weight[:, odd] @ fit[:, odd].t() @ fit[:, kept] @ gram.inverse()
        errors[ridge] = _squared(held_out, weight, kept, weight[:, kept] + change)
    assert found.ridge == min(errors, key=errors.__getitem__)
    # Few tokens ask for a larger ridge than many.
    assert found.ridge >= 1e-2 if tokens == 8 else found.ridge < 1e-2
    assert found.error < found.plain_error


def test_repair_that_does_not_carry_over_is_left_out() -> None:
    kept = torch.tensor([0, 1])
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    fit = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fit[:, 2:] = fit[:, :2]
    held_out = fit.clone()
    held_out[:, 2:] = -fit[:, :2]
    found = repair_removal(weight, kept, _moments(fit), _moments(held_out))
    assert found.ridge is None
    assert torch.equal(found.weight, weight[:, kept])
    assert found.error == found.plain_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_result_has_the_weights_type(dtype: torch.dtype) -> None:
    x = _correlated(200, 8, 0)
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = repair_removal(weight, torch.arange(4), _moments(x), _moments(x))
    assert found.weight.dtype == dtype
    assert found.ridge is not None


def test_inputs_that_never_speak_do_no_harm() -> None:
    x = _correlated(100, 6, 0)
    x[:, :3] = 0
    weight = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = repair_removal(weight, torch.arange(3), _moments(x), _moments(x))
    assert torch.equal(found.weight, weight[:, :3])
    nothing = repair_removal(weight, torch.arange(6), _moments(x), _moments(x))
    assert (nothing.ridge, nothing.error) == (None, 0.0)


def test_moments_that_do_not_fit_are_refused() -> None:
    x = _correlated(10, 4, 0)
    with pytest.raises(UsageError, match="moments are of 4 inputs"):
        repair_removal(torch.zeros(2, 5), torch.arange(2), _moments(x), _moments(x))
    with pytest.raises(UsageError, match="no tokens"):
        repair_removal(torch.zeros(2, 4), torch.arange(2), _moments(x), Moments(torch.zeros(4, 4), 0))
    with pytest.raises(UsageError, match="without outputs"):
        fit_linear(_moments(x), _moments(x))


def _context(batches: int = 8) -> HookContext:
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=4), ffn=FFNConfig(intermediate_size=12))
    return HookContext(_CONFIG, block, 0, batches)


@pytest.mark.parametrize("kind", ["ffn_intermediate", "kv_heads", "query_groups"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_repaired_child_is_nearer_to_the_teacher(kind: str, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    mixin = dense_mixins()[kind]
    block = _context().block_config
    if kind == "ffn_intermediate":
        shapes = {"mlp.gate_proj": (12, 24), "mlp.up_proj": (12, 24), "mlp.down_proj": (24, 12)}
        output, units, width = "mlp.down_proj", 12, 1
    else:
        shapes = {"self_attn.q_proj": (32, 24), "self_attn.k_proj": (16, 24), "self_attn.v_proj": (16, 24)}
        shapes["self_attn.o_proj"] = (24, 32)
        output, units, width = "self_attn.o_proj", 4, 8
    if transposed:
        mixin = type(mixin)(type(mixin.layer_descriptor)(**{**vars(mixin.layer_descriptor), "transposed": True}))
        shapes = {name: shape[::-1] for name, shape in shapes.items()}
    tensors = {f"model.layers.0.{n}.weight": torch.randn(s, generator=generator) for n, s in shapes.items()}
    name = f"model.layers.0.{output}.weight"
    weight = tensors[name].t() if transposed else tensors[name]
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight)
    statistic = GramStatistic(linear, _context(), dtype=torch.float64)
    handle = statistic.attach()
    x = _correlated(400, weight.shape[1], 7).float()
    for batch in x.split(50):
        linear(batch)
    handle.remove()
    order = torch.randperm(units, generator=generator)
    ordered = mixin.sort(0, tensors, block, order, _CONFIG)
    size = units // 2
    child = mixin.resize(block, size, _CONFIG)
    plain = mixin.narrow(0, ordered, block, child, _CONFIG)
    moments = {"fit": statistic.fit, "held_out": statistic.held_out}
    result, fitted = repair_child(mixin, 0, ordered, block, child, _CONFIG, order, **moments)
    assert fitted.ridge is not None
    assert fitted.error < 0.5 * fitted.plain_error
    assert {key for key in result if not torch.equal(result[key], plain[key])} == {name}
    # The kept units in the teacher's numbering, and where the child has them.
    entries = (order[:size].unsqueeze(1) * width + torch.arange(width)).reshape(-1)
    step = units // size if kind == "kv_heads" else 1
    places = (torch.arange(size).unsqueeze(1) * step * width + torch.arange(width)).reshape(-1)
    by_hand = repair_removal(weight, entries, statistic.fit, statistic.held_out)
    repaired = result[name].t() if transposed else result[name]
    torch.testing.assert_close(repaired[:, places], by_hand.weight)
    silent = torch.ones(repaired.shape[1], dtype=torch.bool)
    silent[places] = False
    assert not repaired[:, silent].any()


def test_units_that_feed_no_single_linear_map_are_refused() -> None:
    mixin = sparse_mixins()["experts_removal"]
    x = _moments(_correlated(4, 4, 0))
    with pytest.raises(UnsupportedModelError, match="experts_removal"):
        repair_child(mixin, 0, {}, _context().block_config, _context().block_config, _CONFIG, torch.arange(2), x, x)


def test_a_subblock_is_replaced_by_its_best_linear_map() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(24, 24, bias=False), nn.GELU(), nn.Linear(24, 24, bias=False)).double()
    statistic = LinearFitStatistic(module, _context(), held_out_every=2, dtype=torch.float64)
    handle = statistic.attach()
    batches = [torch.randn(3, 40, 24, dtype=torch.float64) for _ in range(6)]
    outputs = [module(batch).detach() for batch in batches]
    handle.remove()
    found = fit_linear(statistic.fit, statistic.held_out, ridges=[1e-12])
    x, y = (torch.cat(part[::2]).reshape(-1, 24) for part in (batches, outputs))
    torch.testing.assert_close(found.weight, torch.linalg.lstsq(x, y).solution.t(), rtol=1e-6, atol=1e-8)
    x, y = (torch.cat(part[1::2]).reshape(-1, 24) for part in (batches, outputs))
    wanted = (y - x @ found.weight.t()).square().sum() / y.square().sum()
    assert found.error == pytest.approx(float(wanted), rel=1e-6)
    assert found.error < found.plain_error == 1.0
