"""The branches of one decoder layer: what is added to the residual stream, and which weights it is computed with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from anyblock.contract.blocks import Half
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.no_op import hidden_states_of
from torch import nn

from anyblock_new_family.introspection.layers import LayerRun, first_tensor
from anyblock_new_family.introspection.trace import Trace

_CHOICES: Final = ("topk", "max", "sort")
_SCALES: Final = ("mul", "div", "neg", "_to_copy", "clone", "view", "_unsafe_view", "alias")
"""What may be done to the sum of several branches before it is added: each of them is scaled then."""


@dataclass(frozen=True)
class Branch:
    """One thing that is added to the residual stream.

    Attributes:
        half: `attention` when a token changes what others receive.
        weights: the names of what it is computed with.
        attends: whether there is a softmax attention in it.
    """

    half: Half
    weights: frozenset[str]
    attends: bool = False


@dataclass(frozen=True)
class Call:
    """How one module of a layer was called: what it returned, and which argument it handed through, if any.

    `returns` is as `NoOpAttention` takes it.
    """

    returns: int
    residual: str | None
    layer_idx: bool


@dataclass(frozen=True)
class LayerFacts:
    """What a trace of one layer showed.

    Attributes:
        branches: in the order in which they are added.
        path_weights: weights on the residual stream itself, which belong to neither half.
        calls: every module below the layer that ran.
        top_k: the last `topk` over that many values in the ffn, `(of, k)`.
    """

    branches: tuple[Branch, ...]
    path_weights: frozenset[str]
    calls: dict[str, Call] = field(default_factory=dict)
    top_k: tuple[int, int] | None = None

    @property
    def attends(self) -> bool:
        """Whether the attention half has a softmax attention, with keys and values to cache."""
        return any(branch.attends for branch in self.branches if branch.half == "attention")

    def attending(self) -> set[str]:
        """Return the weights of the branches with a softmax attention."""
        return {name for branch in self.branches if branch.attends for name in branch.weights}

    def weights(self, half: Half) -> set[str]:
        """Return the weights that belong to branches of this half and to nothing else."""
        own = {name for branch in self.branches if branch.half == half for name in branch.weights}
        others = {name for branch in self.branches if branch.half != half for name in branch.weights}
        return own - others - self.path_weights


@torch.no_grad()
def trace_layer(run: LayerRun, width: int | None = None) -> LayerFacts:
    """Run a layer again and follow its residual stream from the output back to the input.

    Args:
        run: the layer with its call.
        width: of the residual stream; None for any.

    Raises:
        UnsupportedModelError: the output is not the input with branches added, or there are several residual streams.
    """
    layer = copy.deepcopy(run.module)
    trace, hidden = Trace(layer), hidden_states_of(run.args, run.kwargs).clone()
    if hidden.dim() != 3 or (width is not None and hidden.shape[-1] != width):
        raise UnsupportedModelError(
            f"a layer receives hidden states of shape {list(hidden.shape)}: several residual streams (hyper-connections)",
            expected="[batch, length, hidden_size]",
        )
    args, kwargs = _with_hidden(run, hidden)
    start, seen = trace.value(hidden), []
    handles = [
        module.register_forward_hook(
            lambda _, a, k, out, name=name, module=module: seen.append((name, module, a, k, out)), with_kwargs=True
        )
        for name, module in layer.named_modules()
        if name
    ]
    try:
        with trace:
            output = first_tensor(layer(*args, **kwargs))
    finally:
        for handle in handles:
            handle.remove()
    clean = trace.dependence(start)
    added = _residual_path(trace, trace.value(output), start, clean)
    stream = [value for value, kept in clean.items() if kept and _is_sum(trace, value, clean)]
    branches = _told_apart([_branches(trace, value, stream, clean) for value in added])
    on_path = trace.weights_of(trace.behind(trace.value(output), added)) if added else set()
    calls = {name: _call(trace, clean, run.index_names, *rest) for name, *rest in seen}
    last = [step for step in trace.steps if step.name == "topk"]
    top = (int(last[-1].args and trace.tensors[last[-1].inputs[0]].shape[-1]), int(last[-1].args[1])) if last else None
    return LayerFacts(tuple(reversed(branches)), frozenset(on_path), calls, top)


def _residual_path(trace: Trace, output: int, start: int, clean: dict[int, bool]) -> list[int]:
    added, current = list[int](), output
    if not clean.get(output):
        raise UnsupportedModelError("the layer's output is not its input with something added to it")
    while current != start:
        step = trace.steps[trace.maker[current]]
        dirty = [value for value in step.inputs if clean.get(value) is False]
        added += dirty
        current = next(value for value in step.inputs if clean.get(value))
    return added


def _branches(trace: Trace, value: int, stream: list[int], clean: dict[int, bool]) -> list[Branch]:
    """Return one branch, or several where mixers or a mixer and an ffn were added to each other first."""
    maker = trace.steps[trace.maker[value]]
    parts = [item for item in maker.inputs if clean.get(item) is False]
    factors = [item for item in maker.inputs if item not in parts]
    if maker.name in _SCALES and len(parts) == 1 and clean.keys().isdisjoint(factors):
        scaled = _branches(trace, parts[0], stream, clean)
        if len(scaled) > 1:  # a factor that is a weight belongs to all of them, and so to neither half
            shared = trace.weights_of([trace.maker[value], *trace.behind(value, [*stream, *parts])])
            return [replace(branch, weights=branch.weights | shared) for branch in scaled]
    made = {item: trace.maker.get(item) for item in parts}
    # Where one part is computed from another (a convolution with a residual of its own), both are one branch.
    apart = not any(made[item] in trace.behind(other, stream) for item in parts for other in parts if item != other)
    if maker.name == "add" and len(parts) > 1 and apart:
        return [branch for part in parts for branch in _branches(trace, part, stream, clean)]
    steps = trace.behind(value, stream)
    half = _half(trace, steps, value, stream)
    return [Branch(half, frozenset(trace.weights_of(steps)), half == "attention" and _attends(trace, steps))]


def _told_apart(added: list[list[Branch]]) -> list[Branch]:
    """Return the branches; of two additions that both mix tokens, the one without a softmax attention is the ffn.

    Behind the ffn of some models is a convolution over a few tokens (Inkling).
    """
    attending = [any(branch.attends for branch in part) for part in added]
    if any(attending) and all(branch.half == "attention" for part in added for branch in part):
        added = [
            part if attends else [replace(branch, half="ffn") for branch in part]
            for part, attends in zip(added, attending, strict=True)
        ]
    return [branch for part in added for branch in part]


def _attends(trace: Trace, steps: list[int]) -> bool:
    """Return whether there is a softmax attention among the steps."""
    return any("attention" in name or "softmax" in name for name in (trace.steps[index].name for index in steps))


def _half(trace: Trace, steps: list[int], value: int, stream: list[int]) -> Half:
    names = {trace.steps[index].name for index in steps}
    if names.isdisjoint(_CHOICES) and (_attends(trace, steps) or "convolution" in names):
        return "attention"
    # A choice may be one of experts (whose router has a softmax as well) or one of tokens to attend to.
    return "attention" if _mixes(trace, steps, value, stream) else "ffn"


def _is_sum(trace: Trace, value: int, clean: dict[int, bool]) -> bool:
    if value not in trace.maker:
        return True
    step = trace.steps[trace.maker[value]]
    return any(clean.get(item) is False for item in step.inputs)


def _mixes(trace: Trace, steps: list[int], value: int, stream: list[int]) -> bool:
    """Change one token of what the branch reads, and see whether other tokens receive something else."""
    changed, same = {}, {}
    for item in stream:
        tensor = trace.tensors[item].clone()
        same[item] = tensor.clone()
        tensor.view(-1, tensor.shape[-1])[3] += 0.5 + tensor.view(-1, tensor.shape[-1])[3]
        changed[item] = tensor
    try:
        # Both are replayed: an operation in place may have changed what was recorded since.
        before, found = trace.replay(steps, same).get(value), trace.replay(steps, changed).get(value)
    except (RuntimeError, IndexError, ValueError):
        return False  # only a choice of experts changes the shapes inside
    if found is None or before is None:
        return False
    moved = (found - before).reshape(-1, before.shape[-1]).abs().amax(dim=-1) > 1e-5 * before.abs().max()
    moved[3] = False
    return bool(moved.any())


def _call(
    trace: Trace,
    clean: dict[int, bool],
    index_names: frozenset[str],
    module: nn.Module,
    args: Any,
    kwargs: Any,
    output: Any,
) -> Call:
    values = output if isinstance(output, tuple | list) else (output,)
    residual = None
    first = values[0] if values else None
    if isinstance(first, torch.Tensor) and clean.get(trace.value(first)) and _is_sum(trace, trace.value(first), clean):
        own = trace.behind(trace.value(first))
        given = {**dict(enumerate(args)), **kwargs}
        for name, item in given.items():
            if isinstance(item, torch.Tensor) and clean.get(trace.value(item)):
                maker = trace.maker.get(trace.value(first))
                if maker is not None and maker in own and trace.value(item) in trace.steps[maker].inputs:
                    residual = str(name)
    returns = len(values) if isinstance(output, tuple) else -len(values) if isinstance(output, list) else 1
    numbered = any(type(vars(part).get(name)) is int for part in module.modules() for name in index_names)
    return Call(returns, residual, numbered)


def _with_hidden(run: LayerRun, hidden: torch.Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    old = hidden_states_of(run.args, run.kwargs)
    args = tuple(hidden if item is old else item for item in run.args)
    return args, {name: hidden if item is old else item for name, item in run.kwargs.items()}
