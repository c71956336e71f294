"""What modules returned is kept and given again, and nothing of it stays behind."""

from __future__ import annotations

import torch
from anyblock.modeling.activation_cache import answering, form_of, record_answers, replayed
from torch import nn


class Layer(nn.Module):
    """Modules that return a tuple, are called twice, have no matrix or are written to, and a last one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(4)
        self.first = Pair()
        self.twice = nn.Linear(4, 4)
        self.written = nn.Linear(4, 4)
        self.last = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        mixed, _ = self.first(self.norm(hidden))
        added = self.written(self.twice(self.twice(mixed)))
        added += hidden
        output: torch.Tensor = self.last(added)
        output += mixed.mul_(2) if self.overwrites else 2 * mixed
        return output

    overwrites = False


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, str]:
        self.calls += 1
        return self.inner(hidden), "more"


@torch.no_grad()
def test_a_replayed_layer_returns_the_same_without_running_what_was_recorded() -> None:
    layer, hidden = Layer(), torch.randn(2, 3, 4)
    expected = layer(hidden)
    outputs = record_answers(lambda: layer(hidden), layer, {layer.last[1]})
    assert set(outputs) == {"first", "last.0"}
    calls = layer.first.calls
    answers = {name: answering(tensor, form) for name, (tensor, form) in outputs.items()}
    layer.overwrites = True
    for _ in range(2):  # what is kept does not change when the layer writes to what it is given
        with replayed(layer, {**answers, "absent": answers["first"]}):
            assert torch.equal(layer(hidden), expected)
    assert layer.first.calls == calls
    assert "forward" not in vars(layer.first)
    assert torch.equal(layer(hidden), expected)
    assert layer.first.calls == calls + 1


@torch.no_grad()
def test_where_the_end_is_not_seen_nothing_is_recorded() -> None:
    layer, hidden = Layer(), torch.randn(2, 3, 4)
    assert record_answers(lambda: layer(hidden), layer, ()) == {}
    assert record_answers(lambda: layer(hidden), layer, {layer}) == {}
    assert not layer.first._forward_hooks


class Mixes(nn.Module):
    """A module that several residual streams are mixed by, in front of another (DeepSeek-V4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixing, self.last = nn.Linear(4, 4), Three(), nn.Linear(4, 4)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        after, mixed, collapsed = self.mixing(self.first(hidden))
        return after * self.last(collapsed) + mixed


class Three(Pair):
    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.inner(hidden), hidden + 1, 2 * hidden


@torch.no_grad()
def test_a_module_whose_other_tensors_are_needed_is_not_recorded() -> None:
    layer, hidden = Mixes(), torch.randn(2, 3, 4)
    assert set(record_answers(lambda: layer(hidden), layer, {layer.last})) == {"first"}


def test_the_form_has_no_other_tensors() -> None:
    one, two = torch.ones(1), torch.zeros(1)
    assert form_of(one)(two) is two
    assert form_of((one, one, "state"))(two) == (two, None, "state")
