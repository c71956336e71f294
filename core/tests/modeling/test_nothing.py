"""`Nothing`: sums cost no operation, and everything else is what ordinary zeros give."""

from __future__ import annotations

import copy

import pytest
import torch
from anyblock.modeling.lazy_zeros import Nothing, nothing_like
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Collects the names of all operations that reach a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


HIDDEN = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
SUMS = {
    "behind": lambda x, nothing: x + nothing,
    "before": lambda x, nothing: nothing + x,
    "torch.add": torch.add,
    "in place": lambda x, nothing: x.add_(nothing),
    "dropped out": lambda x, nothing: x + torch.nn.Dropout(0.5)(nothing),
    "in a norm's place": lambda x, nothing: x + torch.nn.Identity()(nothing),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_is_the_other_term_itself(name):
    with Operations() as seen:
        nothing = nothing_like(HIDDEN)
        assert SUMS[name](HIDDEN, nothing) is HIDDEN
    assert seen.names == []


OTHERS = {
    "product": lambda x, z: z * 2.0,
    "difference": lambda x, z: x - z,
    "weighted sum": lambda x, z: torch.add(x, z, alpha=2),
    "another dtype": lambda x, z: x.double() + z,
    "broadcast": lambda x, z: x[:1] + z,
    "number": lambda x, z: z + 1.0,
    "list": lambda x, z: torch.cat([x, z], dim=-1),
    "view": lambda x, z: z.view(-1, 8),
    "index": lambda x, z: z[:, -1],
    "conversion": lambda x, z: z.to(torch.bfloat16),
    "linear": lambda x, z: torch.nn.functional.linear(z, torch.ones(4, 8), torch.ones(4)),
    "method": lambda x, z: z.norm(),
    "rebound": lambda x, z: z.__iadd__(1.0),
    "deep copy": lambda x, z: copy.deepcopy(z),
    "transposed": lambda x, z: z.mT,
}


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_is_what_zeros_give(name):
    found, wanted = (OTHERS[name](HIDDEN, zeros) for zeros in (nothing_like(HIDDEN), torch.zeros_like(HIDDEN)))
    assert type(found) is torch.Tensor
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert torch.equal(found, wanted)


def test_it_stays_nothing_after_it_was_changed_in_place():
    nothing_like(HIDDEN).add_(1.0)
    assert torch.equal(nothing_like(HIDDEN) * 1.0, torch.zeros_like(HIDDEN))


def test_gradients_pass_a_sum():
    x = HIDDEN.clone().requires_grad_()
    (x * 3.0 + nothing_like(x)).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))


def test_a_compiled_graph_has_no_trace_of_it():
    """The whole function is one graph, with ordinary zeros in it."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    def function(x):
        return x + nothing_like(x)

    assert torch.equal(torch.compile(function, backend=backend, fullgraph=True)(HIDDEN), HIDDEN)
    assert len(graphs) == 1
    assert not any(isinstance(value, Nothing) for value in vars(graphs[0]).values())
