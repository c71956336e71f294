"""The data flow of one decoder layer, operation by operation, as it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

_MIXED: Final = ("mm", "convolution", "attention", "einsum", "embedding", "cumsum", "scan")
_SUMS: Final = ("add", "sub", "rsub")


@dataclass(frozen=True)
class Value:
    """Stands for a tensor in the recorded arguments of an operation."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operation: what was called, with `Value`s in place of tensors, and the values that came out.

    Attributes:
        name: the operation's name without namespace and overload, an in-place one without its underscore.
        mutates: whether the function writes to what it is given.
    """

    name: str
    function: Any
    args: Any
    kwargs: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    mutates: bool = False


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation while it is active.

    Args:
        module: whose parameters and buffers are distinguished from other tensors.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights: dict[int, str] = {}
        self.tensors: list[torch.Tensor] = []
        self.steps: list[Step] = []
        self.maker: dict[int, int] = {}
        self._place: dict[int, int] = {}
        self._whole: dict[int, torch.Tensor] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            self.weights[self.value(tensor)] = name

    def value(self, tensor: torch.Tensor) -> int:
        """Return a tensor's number; a new one for a tensor that was not seen before."""
        if id(tensor) not in self._place:
            self._renumber(tensor)
        return self._place[id(tensor)]

    def _renumber(self, tensor: torch.Tensor) -> int:
        self._place[id(tensor)] = len(self.tensors)
        self.tensors.append(tensor)  # kept alive, so that no other tensor gets the same id
        storage = tensor.untyped_storage()
        if tensor.is_contiguous() and tensor.nbytes == storage.nbytes():
            self._whole.setdefault(storage.data_ptr(), tensor)
        return self._place[id(tensor)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record it."""
        kwargs = kwargs or {}
        flat = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, torch.Tensor)]
        inputs = tuple(self.value(tensor) for tensor in flat)
        shown = tree_map(
            lambda item: Value(self.value(item)) if isinstance(item, torch.Tensor) else item, (args, kwargs)
        )
        result = func(*args, **kwargs)
        made = [item for item in tree_flatten(result)[0] if isinstance(item, torch.Tensor)]
        outputs = tuple(self._renumber(tensor) for tensor in made)
        name = str(func.overloadpacket.__name__).rstrip("_")
        self._record(Step(name, func, shown[0], shown[1], inputs, outputs, func._schema.is_mutable))
        for written in _written(func, args, kwargs):
            self._pass_on(written)
        return result

    def _record(self, step: Step) -> None:
        for output in step.outputs:
            self.maker[output] = len(self.steps)
        self.steps.append(step)

    def _pass_on(self, view: torch.Tensor) -> None:
        """Record that a tensor became another one because a part of it was written to."""
        whole = self._whole.get(view.untyped_storage().data_ptr())
        if whole is None or whole is view:
            return
        given = self.value(whole), self.value(view)
        start = view.storage_offset() - whole.storage_offset()
        place = view.size(), view.stride(), start
        made = self._renumber(whole)
        self._record(Step("write", _with_part, (*map(Value, given), *place), {}, given, (made,)))

    # -- questions --------------------------------------------------------------------------------------------------

    def dependence(self, start: int) -> dict[int, bool]:
        """Return, for each value computed from `start`, whether it still is the residual stream, normed or scaled at most."""
        clean = {start: True}
        for step in self.steps:
            states = [clean[value] for value in step.inputs if value in clean]
            if not states:
                continue
            mixed = any(part in step.name for part in _MIXED)
            kept = not mixed and (any(states) if step.name in _SUMS else all(states))
            for output in step.outputs:
                clean[output] = kept
        return clean

    def behind(self, value: int, cut: Iterable[int] = ()) -> list[int]:
        """Return the steps that a value was computed by, in order, without going behind the values in `cut`."""
        stop, found, todo = set(cut), set[int](), [value]
        while todo:
            current = todo.pop()
            step = self.maker.get(current)
            if current in stop or step is None or step in found:
                continue
            found.add(step)
            todo += self.steps[step].inputs
        return sorted(found)

    def weights_of(self, steps: Iterable[int]) -> set[str]:
        """Return the names of the parameters and buffers that these steps read."""
        return {self.weights[value] for step in steps for value in self.steps[step].inputs if value in self.weights}

    def replay(self, steps: Iterable[int], changed: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Run recorded steps again with other values, and return what each value became."""
        now = dict(changed)

        def tensor(item: Any) -> Any:
            return now.get(item.index, self.tensors[item.index]) if isinstance(item, Value) else item

        for index in steps:
            step = self.steps[index]
            args, kwargs = tree_map(tensor, (step.args, step.kwargs), is_leaf=lambda item: isinstance(item, Value))
            if step.mutates:
                args = tree_map(lambda item: item.clone() if isinstance(item, torch.Tensor) else item, args)
            made = [item for item in tree_flatten(step.function(*args, **kwargs))[0] if isinstance(item, torch.Tensor)]
            now.update(zip(step.outputs, made, strict=True))
        return now


def _written(function: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors that an operation has written to."""
    named = [(argument, kwargs.get(argument.name)) for argument in function._schema.arguments]
    given = [(argument, value) for argument, value in zip(function._schema.arguments, args, strict=False)]
    return [
        value
        for argument, value in given + named
        if isinstance(value, torch.Tensor) and argument.alias_info is not None and argument.alias_info.is_write
    ]


def _with_part(whole: torch.Tensor, part: torch.Tensor, size: Any, stride: Any, start: int) -> torch.Tensor:
    """Return a contiguous tensor in which a part is another one."""
    made = whole.contiguous().clone()
    made.as_strided(size, stride, start).copy_(part)
    return made
