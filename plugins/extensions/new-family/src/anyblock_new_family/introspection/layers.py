"""The list of decoder layers, found by running a model once and not by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.no_op import INDEX_NAMES, hidden_states_of
from torch import nn


@dataclass(frozen=True)
class LayerRun:
    """One decoder layer with what it received and returned in a forward pass, and the names of layer indices in it."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    index_names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LayerList:
    """The decoder layers.

    Attributes:
        path: module path of the list, `model.layers`.
        runs: every layer with its call.
        before, after: paths of the modules that ran in front of the first and after the last layer, in order.
    """

    path: str
    runs: list[LayerRun]
    before: list[str]
    after: list[str]


@torch.no_grad()
def find_layers(model: Any, ids: torch.Tensor, count: int) -> LayerList:
    """Run a model on token ids `[batch, length]` and find its decoder layers.

    They are the `ModuleList` of `count` modules that run in order, each on what the one before returned.

    Raises:
        UnsupportedModelError: there is none.
    """
    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    members = {id(layer): (path, index) for path, layers in lists.items() for index, layer in enumerate(layers)}
    calls: dict[str, list[tuple[int, LayerRun]]] = {path: [] for path in lists}
    order: list[tuple[str, str]] = []

    def watch(name: str, module: nn.Module) -> Any:
        """Record when a module ends, and of members of lists what they were given and returned."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            """Note that the module ended, and its call if it is in a list of modules."""
            order.append(("end", name))
            if id(module) in members:
                path, index = members[id(module)]
                calls[path].append((index, LayerRun(module, args, kwargs, output)))

        return module.register_forward_hook(hook, with_kwargs=True)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    found = [
        path
        for path, runs in calls.items()
        if len(lists[path]) == count and [i for i, _ in runs] == list(range(count)) and _chain(runs)
    ]
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__}: no list of {count} modules runs as a chain of decoder layers",
            expected="a ModuleList of num_hidden_layers layers, each run once on the output of the one before",
        )
    path = max(found, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
    places = [place for place, (_, name) in enumerate(order) if name.rpartition(".")[0] == path]
    first, last = order.index(("end", f"{path}.0")), places[-1]
    inside = f"{path}."
    before = [name for _, name in order[:first] if not name.startswith(inside)]
    after = [name for _, name in order[last + 1 :] if not inside.startswith(f"{name}.")]
    names = index_names([run.module for _, run in calls[path]])
    return LayerList(path, [replace(run, index_names=names) for _, run in calls[path]], before, after)


def index_names(layers: Sequence[nn.Module]) -> frozenset[str]:
    """Return the names of attributes that hold a layer's number: the usual ones, and those that do so in several layers."""
    seen: dict[str, list[set[int]]] = {}
    for layer in layers:
        own: dict[str, set[int]] = {}
        for module in layer.modules():
            for name, value in vars(module).items():
                if type(value) is int:
                    own.setdefault(name, set()).add(value)
        for name, values in own.items():
            seen.setdefault(name, []).append(values)
    every = [{number} for number in range(len(layers))]
    return frozenset(INDEX_NAMES) | {name for name, values in seen.items() if len(layers) > 1 and values == every}


def first_tensor(output: Any) -> torch.Tensor:
    """Return the hidden states from what a module returned: the tensor itself, or the first of several values."""
    return output if isinstance(output, torch.Tensor) else output[0]


def _chain(runs: list[tuple[int, LayerRun]]) -> bool:
    try:
        inputs = [hidden_states_of(run.args, run.kwargs) for _, run in runs]
        outputs = [first_tensor(run.output) for _, run in runs]
    except (TypeError, IndexError, KeyError):
        return False
    return all(torch.equal(made, taken) for made, taken in zip(outputs, inputs[1:], strict=False))
