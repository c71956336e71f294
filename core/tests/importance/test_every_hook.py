"""What holds for every hook that core registers, whatever it scores: shards add up, and a stopped run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from anyblock.errors import UsageError
from anyblock.importance import HOOKS, ImportanceHook
from torch import nn

NOT_SUMS = {"IterativeChannelContributionHook"}
"""Hooks whose later batches depend on what earlier ones removed: they refuse to be merged."""
PARTS = {
    "RankedChoiceVotingHook": "gate",
    "MoERemoveExpertsHook": "",
    "ExpertChannelContributionHook": "experts",
}
"""`{hook of a sparse ffn: the module inside it that the hook watches}`."""


@pytest.fixture
def data() -> list[torch.Tensor]:
    """Batches of different lengths, so that a merge that forgets to weigh them shows."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 4 + 3 * index, 24, generator=generator) for index in range(4)]


class Subject:
    """A hook class with a module to watch and a module to run."""

    def __init__(self, name: str, make_sparse: Any, tools: Any) -> None:
        torch.manual_seed(0)
        self.hook = HOOKS[name]
        if name in PARTS:
            self.whole: nn.Module = make_sparse("mixtral")
            self.watched, self.context = self.whole.get_submodule(PARTS[name]), tools.context(experts=8)
        else:
            self.whole = self.watched = nn.RMSNorm(24) if "LayerNorm" in name else nn.Linear(24, 10)
            self.context = tools.context(**({"mamba": 4} if "Mamba" in name else {}))

    def fed(self, batches: Sequence[torch.Tensor], state: Any = None) -> ImportanceHook:
        hook = self.hook(self.watched, self.context)
        if state is not None:
            hook.load_state_dict(state)
        handle = hook.attach()
        with torch.no_grad():
            for batch in batches:
                self.whole(batch)
        handle.remove()
        return hook


@pytest.mark.parametrize("name", sorted(HOOKS))
@pytest.mark.parametrize("cut", [1, 3])
def test_workers_on_shards_of_the_data_find_what_one_finds(
    name: str, cut: int, data: list[torch.Tensor], make_sparse: Any, tools: Any
) -> None:
    subject = Subject(name, make_sparse, tools)
    whole, first, second = subject.fed(data), subject.fed(data[:cut]), subject.fed(data[cut:])
    assert not torch.equal(first.scores(), whole.scores()), "otherwise merging would show nothing"
    if name in NOT_SUMS:
        with pytest.raises(UsageError, match="cannot be merged"):
            first.merge(second)
        return
    first.merge(second)
    assert first.batches == len(data)
    torch.testing.assert_close(first.scores(), whole.scores(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, data: list[torch.Tensor], make_sparse: Any, tools: Any
) -> None:
    subject = Subject(name, make_sparse, tools)
    stopped = subject.fed(data[:2])
    assert torch.equal(subject.fed(data[2:], stopped.state_dict()).scores(), subject.fed(data).scores())
