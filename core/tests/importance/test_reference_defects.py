"""One test for each known defect of the reference's hooks (the numbers of its defect list); each fails on its behaviour."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.importance import (
    HOOKS,
    HookContext,
    IndependentKvHeadContributionHook,
    IterativeChannelContributionHook,
    MoERemoveExpertsHook,
    RankedChoiceVotingHook,
)
from anyblock.importance.router import choice_scores, find_router, watch_router
from anyblock.pruning.ordering import best_first
from torch import nn
from torch.nn import functional


def _batches(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(2, 20, 24, generator=generator) for _ in range(count)]


def _removal(module: nn.Module, tools: Any, **options: Any) -> MoERemoveExpertsHook:
    hook = MoERemoveExpertsHook(module, tools.context(experts=8), **options)
    tools.feed(hook, _batches())
    return hook


def _unused(module: Any, expert: int) -> None:
    """Make the router avoid this expert: its logit lies far below every other."""
    router = find_router(module)
    with torch.no_grad():
        router.weight[expert] *= 0
        if getattr(router, "bias", None) is not None:
            router.bias[expert] = -100.0
        if hasattr(router, "e_score_correction_bias"):
            router.e_score_correction_bias[expert] = -100.0


def test_01_experts_stay_by_their_importance_and_not_by_their_place_in_a_sorted_list(
    make_sparse: Any, tools: Any
) -> None:
    scores = _removal(make_sparse("mixtral"), tools).scores()
    kept = set(best_first(scores)[:4].tolist())
    assert kept == set(scores.topk(4).indices.tolist())
    assert kept != set(best_first(scores.argsort())[:4].tolist()), "the case must tell the two apart"


@pytest.mark.parametrize("name", ["gpt_oss", "deepseek", "nemotron_h"])
@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_02_an_expert_that_is_never_used_is_the_least_important(
    name: str, metric: str, make_sparse: Any, tools: Any
) -> None:
    module = make_sparse(name)
    _unused(module, 5)
    scores = _removal(module, tools, metric=metric).scores()
    assert scores[5] == 0
    assert int(scores.argmin()) == 5
    assert (scores >= 0).all()


def test_02_a_busy_expert_outranks_a_rare_one_by_cosine(tools: Any, make_sparse: Any) -> None:
    module = make_sparse("gpt_oss")
    with torch.no_grad():
        module.router.bias.copy_(torch.tensor([4.0, 3.0, 0, 0, 0, 0, 0, -3.0]))
    scores = _removal(module, tools, metric="cosine").scores()
    assert scores[0] > scores[7]


def test_03_voting_puts_an_expert_that_nobody_chooses_last(make_sparse: Any, tools: Any) -> None:
    module = make_sparse("gpt_oss")
    _unused(module, 2)
    hook = RankedChoiceVotingHook(module.router, tools.context(experts=8))
    handle = hook.attach()
    for batch in _batches():
        module(batch)
    handle.remove()
    assert hook.scores()[2] == 0


def test_03_scores_that_a_router_cuts_to_the_top_k_are_not_voted_by(tools: Any) -> None:
    """A router as in transformers 4: it returns scores that are zero beyond the chosen experts."""
    torch.manual_seed(0)

    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 24))

        def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            top = functional.linear(hidden, self.weight).topk(2, dim=-1)
            return torch.zeros(len(hidden), 8).scatter(1, top.indices, top.values.softmax(dim=-1)), top.indices

    router = Router()
    hook = RankedChoiceVotingHook(router, tools.context(experts=8))
    x = torch.randn(50, 24)
    tools.feed(hook, [x])
    assert torch.equal(hook.rankings.long(), (x @ router.weight.t()).argsort(dim=1, descending=True))


def test_04_experts_are_weighted_by_unbiased_scores_and_chosen_within_groups(make_sparse: Any, tools: Any) -> None:
    """The module's own routing is used: for DeepSeek that is sigmoid weights without the bias, and group limits."""
    module = make_sparse("deepseek")
    module.gate.e_score_correction_bias.copy_(torch.linspace(-1, 1, 8))
    hook = MoERemoveExpertsHook(module, tools.context(experts=8))
    x = _batches(1)[0].reshape(-1, 24)
    logits, complete = hook.get_router_logits_and_routed_experts(x)
    with watch_router(module.gate, 8) as routing:
        wanted = module(x.unsqueeze(0))[0]
    assert torch.equal(complete, wanted)
    chosen = hook.get_chosen_experts(logits)
    assert routing.indices is not None
    assert torch.equal(chosen, routing.indices)
    assert ((chosen // 4).amin(dim=1) == (chosen // 4).amax(dim=1)).all(), "both experts are of one group"
    plain = logits.topk(2, dim=1).indices
    assert not torch.equal(chosen.sort().values, plain.sort().values), "the case must tell the two apart"


def test_04_preferences_of_a_sigmoid_router_include_the_correction_bias(make_sparse: Any) -> None:
    router = find_router(make_sparse("nemotron_h"))
    router.e_score_correction_bias.copy_(torch.linspace(2, -2, 8))
    x = torch.randn(30, 24)
    scores = choice_scores(router, (x,), {}, None, 8)
    assert not torch.equal(scores.argsort(dim=1), functional.linear(x, router.weight).argsort(dim=1))
    torch.testing.assert_close(scores, functional.linear(x, router.weight).sigmoid() + router.e_score_correction_bias)


def test_10_kv_heads_of_a_multimodal_model_can_be_scored(tools: Any) -> None:
    """The hook sees the text configuration, whose hidden size and head width do not multiply out, or none at all."""
    torch.manual_seed(0)
    block = tools.context(heads=2).block_config
    for config in (SimpleNamespace(hidden_size=10, head_dim=16, num_attention_heads=4), SimpleNamespace()):
        hook = IndependentKvHeadContributionHook(nn.Linear(64, 10, bias=False), HookContext(config, block, 0, 1))
        tools.feed(hook, [torch.randn(1, 5, 64)])
        assert (hook.scores() > 0).all()


def test_32_every_hook_is_constructed_the_same_way(make_sparse: Any, tools: Any) -> None:
    sparse = make_sparse("mixtral")
    modules = {
        "RankedChoiceVotingHook": sparse.gate,
        "MoERemoveExpertsHook": sparse,
        "ExpertChannelContributionHook": sparse.experts,
        "LayerNormContributionHook": nn.RMSNorm(24),
    }
    for name, hook in HOOKS.items():
        context = tools.context(experts=8) if name in modules else tools.context()
        if name == "MambaHeadContributionHook":
            context = tools.context(mamba=4)
        made = hook(modules.get(name, nn.Linear(24, 10)), context)
        assert made.scores().dtype == torch.float32


@pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
def test_a_bias_does_not_change_the_iterative_ranking(offset: float, tools: Any) -> None:
    """In the reference the output has the bias and the pruned output has not."""
    torch.manual_seed(2)
    weight = torch.randn(10, 24, dtype=torch.float64).float()
    order = []
    for bias in (None, torch.full((10,), offset)):
        hook = IterativeChannelContributionHook(
            tools.linear(weight, bias), tools.context(3), calibration_method="scale_by_magnitude"
        )
        order.append(tools.feed(hook, _batches()).ascending().tolist())
    assert order[0] == order[1]


def test_any_number_of_batches_may_come(tools: Any) -> None:
    """The reference asserts that exactly as many batches came as were announced."""
    for count in (0, 1, 2, 3):
        hook = IterativeChannelContributionHook(nn.Linear(24, 10), tools.context(2))
        tools.feed(hook, _batches(count))
        assert sorted(hook.scores().tolist()) == list(range(24))
