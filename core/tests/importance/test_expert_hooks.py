"""Hooks on experts, on stock sparse modules."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.importance import (
    ExpertChannelContributionHook,
    MoERemoveExpertsHook,
    RankedChoiceVotingHook,
    RemoveExpertsIndependentHook,
)
from anyblock.importance.router import find_router, silenced_experts, watch_router
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

_SPARSE = ["mixtral", "gpt_oss", "deepseek", "nemotron_h"]


def _batches(count: int = 3, tokens: int = 9) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, tokens, 24, generator=generator) for _ in range(count)]


def _out(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result = module(x)
    value: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return value.reshape(-1, 24)


def _vote(rankings: list[list[int]], top_k: int) -> list[int]:
    """Ranked-choice voting as one would do it on paper."""
    experts = len(rankings[0])
    standing, gone = list(range(experts)), []
    while standing:
        votes = dict.fromkeys(standing, 0)
        for ballot in rankings:
            for expert in [e for e in ballot if e in standing][:top_k]:
                votes[expert] += 1
        dislike = {e: sum(ballot.index(e) for ballot in rankings) for e in standing}
        loser = min(standing, key=lambda e: (votes[e], -dislike[e], -e))
        standing.remove(loser)
        gone.append(loser)
    return gone


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    ballots=st.integers(2, 7).flatmap(lambda e: st.lists(st.permutations(range(e)), min_size=1, max_size=12)),
    top_k=st.integers(1, 4),
)
def test_voting_as_on_paper(ballots: list[list[int]], top_k: int, tools: Any) -> None:
    experts = len(ballots[0])
    context = tools.context(experts=experts, top_k=min(top_k, experts))
    scores = torch.empty(len(ballots), experts)
    for row, ballot in enumerate(ballots):
        scores[row, ballot] = torch.arange(experts, 0, -1.0)
    hook = RankedChoiceVotingHook(nn.Identity(), context)
    hook(hook.module, (scores,), {}, scores)
    wanted = _vote(ballots, min(top_k, experts))
    assert hook.scores().argsort().tolist() == wanted


@pytest.mark.parametrize("name", _SPARSE)
def test_voting_reads_every_kind_of_router(name: str, make_sparse: Any, tools: Any) -> None:
    module = make_sparse(name)
    router = find_router(module)
    hook = RankedChoiceVotingHook(router, tools.context(experts=8))
    handle = hook.attach()
    data = _batches()
    for batch in data:
        _out(module, batch)
    handle.remove()
    x = torch.cat([batch.reshape(-1, 24) for batch in data])
    logits = functional.linear(x, router.weight, getattr(router, "bias", None))
    if hasattr(router, "e_score_correction_bias"):
        logits = logits.sigmoid() + router.e_score_correction_bias
    assert torch.equal(hook.rankings.long(), logits.argsort(dim=1, descending=True, stable=True))
    assert hook.rankings.dtype == torch.uint8
    assert hook.top_k == 2


@pytest.mark.parametrize("name", _SPARSE)
def test_removal_equals_running_the_module_without_the_expert(name: str, make_sparse: Any, tools: Any) -> None:
    module = make_sparse(name)
    router = find_router(module)
    hook = MoERemoveExpertsHook(module, tools.context(experts=8))
    data = _batches()
    handle = hook.attach()
    for batch in data:
        _out(module, batch)
    handle.remove()
    mse, cosine = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    for batch in data:
        with watch_router(router, 8) as routing:
            complete = _out(module, batch)
        assert routing.indices is not None
        for expert in range(8):
            users = (routing.indices == expert).any(dim=1)
            if not users.any():
                continue
            with silenced_experts(router, [expert], 8):
                without = _out(module, batch)
            assert torch.allclose(without[~users], complete[~users], atol=1e-5), "other tokens do not notice"
            share = users.double().mean()
            mse[expert] += share * (complete - without)[users].square().mean()
            cosine[expert] += share * (1 - functional.cosine_similarity(complete[users], without[users], dim=1).mean())
    torch.testing.assert_close(hook.scores().double(), mse / 3, rtol=1e-4, atol=1e-6)
    hook.metric = "cosine"
    torch.testing.assert_close(hook.scores().double(), cosine / 3, rtol=1e-4, atol=1e-6)


def test_removal_leaves_the_module_and_other_hooks_alone(make_sparse: Any, tools: Any) -> None:
    module = make_sparse("deepseek")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    voting = RankedChoiceVotingHook(find_router(module), tools.context(experts=8))
    channels = ExpertChannelContributionHook(module.experts, tools.context(experts=8))
    alone = [copy.deepcopy(hook) for hook in (voting, channels)]
    batch = _batches(1)[0]
    plain = _out(module, batch)
    hooks = [voting, channels, MoERemoveExpertsHook(module, tools.context(experts=8))]
    handles = [hook.attach() for hook in hooks]
    assert torch.equal(_out(module, batch), plain)
    for handle in handles:
        handle.remove()
    assert [hook.batches for hook in hooks] == [1, 1, 1]
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert "forward" not in vars(find_router(module))
    for hook, module_of in zip(alone, (find_router(module), module.experts), strict=True):
        hook.module = module_of
        handle = hook.attach()
        _out(module, batch)
        handle.remove()
    assert torch.equal(alone[0].scores(), voting.scores())
    assert torch.equal(alone[1].scores(), channels.scores())


def test_a_silenced_expert_is_not_let_back_in_by_the_correction_bias(make_sparse: Any) -> None:
    module = make_sparse("nemotron_h")
    router = find_router(module)
    router.e_score_correction_bias[3] = 50.0
    x = _batches(1)[0]
    with watch_router(router, 8) as routing:
        _out(module, x)
    assert routing.indices is not None
    assert (routing.indices == 3).any(dim=1).all()
    with silenced_experts(router, [3], 8), watch_router(router, 8) as routing:
        _out(module, x)
    assert routing.indices is not None
    assert not (routing.indices == 3).any()
    assert router.e_score_correction_bias[3] == 50.0


@pytest.mark.parametrize("name", _SPARSE)
def test_channels_of_experts_follow_the_formula(name: str, make_sparse: Any, tools: Any) -> None:
    module = make_sparse(name)
    experts = module.experts
    hook = ExpertChannelContributionHook(experts, tools.context(experts=8))
    seen: list[Any] = []
    handles = [hook.attach(), experts.register_forward_hook(lambda _, args, output: seen.append((args, output)))]
    data = _batches()
    for batch in data:
        _out(module, batch)
    for handle in handles:
        handle.remove()
    scores = hook.scores()
    assert scores.shape == (8, 12)
    wanted = torch.zeros(8, 12, dtype=torch.float64)
    for (hidden, indices, weights), output in seen:
        rebuilt = torch.zeros_like(output)
        for token in range(len(hidden)):
            for expert, weight in zip(indices[token].tolist(), weights[token], strict=True):
                active, written = _expert(experts, expert, hidden[token])
                rebuilt[token] += weight * written
                wanted[expert] += (weight * active).abs().double() / len(hidden)
        torch.testing.assert_close(rebuilt, output, rtol=1e-4, atol=1e-4)
    down = experts.down_proj.detach().double()
    wanted *= down.norm(dim=2 if name == "gpt_oss" else 1)
    torch.testing.assert_close(scores.double(), wanted, rtol=1e-4, atol=1e-6)


def test_channels_of_an_expert_that_no_token_reached_are_ranked_by_their_weights(make_sparse: Any, tools: Any) -> None:
    experts = make_sparse("mixtral").experts
    hook = ExpertChannelContributionHook(experts, tools.context(experts=8))
    hidden, indices = torch.randn(5, experts.down_proj.shape[1]), torch.zeros(5, 1, dtype=torch.int64)
    hook(experts, (hidden, indices, torch.ones(5, 1)), {}, None)
    norms = experts.down_proj.detach().norm(dim=1)
    torch.testing.assert_close(hook.scores()[1:], norms[1:])
    assert not torch.allclose(hook.scores()[0], norms[0])


def _expert(experts: Any, expert: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One expert by hand: its intermediate activation, and what it writes."""
    if hasattr(experts, "gate_up_proj_bias"):
        both = x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
        gate, up = both[::2].clamp(max=experts.limit), both[1::2].clamp(-experts.limit, experts.limit)
        active = (up + 1) * gate * torch.sigmoid(experts.alpha * gate)
        return active, active @ experts.down_proj[expert] + experts.down_proj_bias[expert]
    if hasattr(experts, "gate_up_proj"):
        gate, up = (experts.gate_up_proj[expert] @ x).chunk(2)
        active = experts.act_fn(gate) * up
    else:
        active = experts.act_fn(experts.up_proj[expert] @ x)
    return active, experts.down_proj[expert] @ active


def test_hooks_on_experts_need_a_sparse_block(make_sparse: Any, tools: Any) -> None:
    module = make_sparse("mixtral")
    for hook in (RankedChoiceVotingHook, MoERemoveExpertsHook, ExpertChannelContributionHook):
        with pytest.raises(UsageError, match="not sparse"):
            hook(module, tools.context())
    with pytest.raises(UnsupportedModelError, match="has no router"):
        MoERemoveExpertsHook(nn.Linear(4, 4), tools.context(experts=4))
    with pytest.raises(UnsupportedModelError, match="does not hold fused expert weights"):
        ExpertChannelContributionHook(nn.Linear(4, 4), tools.context(experts=4))
    with pytest.raises(UsageError, match="metric"):
        MoERemoveExpertsHook(module, tools.context(experts=8), metric="kl")  # type: ignore[arg-type]
    voting = RankedChoiceVotingHook(nn.Identity(), tools.context(experts=8))
    with pytest.raises(UnsupportedModelError, match="no score for each of 8 experts"):
        voting(voting.module, (torch.zeros(2, 5),), {}, torch.zeros(2, 5))


def test_a_family_can_say_how_it_routes(tools: Any) -> None:
    """A sparse module that routes by hand, through the abstract base's two methods."""
    torch.manual_seed(0)
    gate, table = torch.randn(6, 24), torch.randn(6, 24, 24) / 5
    module = SimpleNamespace()

    class ByHand(RemoveExpertsIndependentHook):
        def get_router_logits_and_routed_experts(
            self, hidden_states: torch.Tensor, router_logits: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            logits = hidden_states @ gate.t() if router_logits is None else router_logits
            top = logits.topk(2, dim=1)
            weights = top.values.softmax(dim=1)
            written = torch.einsum("tkio,ti->tko", table[top.indices], hidden_states)
            return logits, (written * weights.unsqueeze(2)).sum(dim=1)

    hook = ByHand(module, tools.context(experts=6))  # type: ignore[arg-type]
    x = torch.randn(3, 7, 24)
    hook(module, (x,), {}, None)  # type: ignore[arg-type]
    tokens = x.reshape(-1, 24)
    logits = tokens @ gate.t()
    for expert in range(6):
        users = (logits.topk(2, dim=1).indices == expert).any(dim=1)
        without = logits.clone()
        without[:, expert] = float("-inf")
        before = hook.get_router_logits_and_routed_experts(tokens, logits)[1]
        after = hook.get_router_logits_and_routed_experts(tokens, without)[1]
        wanted = (before - after)[users].square().mean() * users.float().mean() if users.any() else torch.zeros(())
        assert hook.scores()[expert].item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-8)
