"""What the modules of a layer returned, so that variants of the layer need not run those that would return the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

Form = Callable[[torch.Tensor], Any]
"""Gives a tensor the form in which a module returns one."""
Answer = Callable[..., Any]
"""Stands for a module's forward."""
Outputs = Mapping[str, tuple[torch.Tensor, Form]]
"""`{path inside the layer: (the tensor that the module returned, the form in which it returned it)}`."""


class _Reached(Exception):  # noqa: N818 - it ends a pass, nothing has failed
    """A module is about to run that the pass was meant to stop before."""


def record_answers(run: Callable[[], object], layer: nn.Module, before: Collection[nn.Module]) -> Outputs:
    """Run a layer until one of the modules `before` is called, and return what other modules had returned by then.

    A module is left out that ran inside one that is in, that was called more than once, that returned anything but a tensor
    (alone or first of two in a tuple), whose tensor was written to later, or that has no matrix and so costs less to run.

    Args:
        run: runs the layer.
        layer: the layer.
        before: modules inside it. Where none of them is called, or the layer itself is among them, nothing is returned:
            what had run before them is unknown then.
    """
    outputs: dict[str, tuple[torch.Tensor, Form]] = {}
    versions: dict[str, int] = {}
    calls: dict[str, int] = {}

    def stop(module: nn.Module, _: Any) -> None:
        raise _Reached

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        """Return a hook that keeps what the module of this name returns, and forgets what ran inside it."""

        def hook(module: nn.Module, _: Any, output: Any) -> None:
            """Keep an output, if it is the module's first and a tensor."""
            calls[name] = calls.get(name, 0) + 1
            for inner in [known for known in outputs if known.startswith(f"{name}.")]:
                del outputs[inner]
            first = output[0] if isinstance(output, tuple) and sum(map(torch.is_tensor, output)) < 3 else output
            if calls[name] == 1 and isinstance(first, torch.Tensor):
                outputs[name], versions[name] = (first, form_of(output)), first._version
            else:
                outputs.pop(name, None)

        return hook

    with ExitStack() as hooks:
        for name, module in layer.named_modules():
            if module in before:
                hooks.callback(module.register_forward_pre_hook(stop).remove)
            elif name and any(parameter.dim() > 1 for parameter in module.parameters()):
                hooks.callback(module.register_forward_hook(keep(name)).remove)
        try:
            run()
        except _Reached:
            return {name: found for name, found in outputs.items() if found[0]._version == versions[name]}
    return {}


@contextmanager
def replayed(layer: nn.Module, outputs: Mapping[str, Answer]) -> Iterator[None]:
    """For a while, modules of a layer answer with what they are given here, and do not run.

    Args:
        layer: a layer, or a variant of it; modules that it does not have are passed over.
        outputs: `{path inside the layer: stands for the module's forward}`.
    """
    modules = dict(layer.named_modules())
    changed = [(modules[name], answer) for name, answer in outputs.items() if name in modules]
    before = [module.__dict__.get("forward") for module, _ in changed]
    for module, answer in changed:
        module.forward = answer
    try:
        yield
    finally:
        for (module, _), own in zip(changed, before, strict=True):
            if own is None:
                del module.forward
            else:
                module.forward = own


def answering(tensor: torch.Tensor, form: Form) -> Answer:
    """Return a forward that gives a copy of `tensor`, since the layer may go on to write to what it gets."""
    return lambda *_, **__: form(tensor.clone())


def form_of(output: Any) -> Form:
    """Return what gives another tensor the form of a module's output: alone, or first in a tuple without other tensors."""
    if isinstance(output, torch.Tensor):
        return lambda tensor: tensor
    rest = tuple(None if isinstance(value, torch.Tensor) else value for value in output[1:])
    return lambda tensor: (tensor, *rest)
