"""A linear module inside a layer as a sum over its inputs, of which a smaller candidate has the first terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from anyblock.modeling.recorded import Answer, Form, answering, form_of


class NestedSum:
    """Watches a linear module and the modules around it that return its result as it is.

    Args:
        layer: a variant of a layer, with its weights.
        path: the module inside the layer, for instance `mlp.down_proj`.
    """

    def __init__(self, layer: nn.Module, path: str) -> None:
        self._layer = layer
        self._path = path
        self._map = layer.get_submodule(path)
        self._weight = self._map.weight if isinstance(self._map, nn.Linear) else torch.empty(0)
        self._units = self._result = torch.empty(0)
        self._version = 0
        self._outermost = path
        self._form: Form = form_of(self._result)

    @property
    def width(self) -> int:
        """How many inputs the module has."""
        return self._weight.shape[-1]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within this context the layer is run once, and the module's inputs and result are kept."""
        self._outermost = self._path
        with ExitStack() as hooks:
            hooks.callback(self._map.register_forward_hook(self._keep).remove)
            names = self._path.split(".")
            for end in range(len(names) - 1, 0, -1):
                around = ".".join(names[:end])
                hook = self._layer.get_submodule(around).register_forward_hook(self._passed_on(around))
                hooks.callback(hook.remove)
            yield

    def begins_with(self, smaller: NestedSum) -> bool:
        """Say whether a candidate with fewer units is the beginning of this sum, and can be answered with a part of it."""
        if self._outermost == self._path or not (type(self._map) is type(smaller._map) is nn.Linear):
            return False
        first = self._units[..., : smaller.width]
        near = 64 * torch.finfo(first.dtype).eps * float(first.abs().max())
        alike = bool(((smaller._units - first).abs() <= near).all())
        return alike and torch.equal(smaller._weight, self._weight[:, : smaller.width])

    def parts(self, widths: Sequence[int]) -> Iterator[tuple[str, Answer]]:
        """Yield, for so many of the first inputs each, which module of the layer would have answered what.

        Args:
            widths: ascending.
        """
        total = torch.zeros_like(self._result, dtype=torch.float32)
        if isinstance(self._map.bias, torch.Tensor):
            total += self._map.bias
        start = 0
        for width in widths:
            part = slice(start, width)
            total += nn.functional.linear(self._units[..., part], self._weight[:, part])
            start = width
            yield self._outermost, answering(total.to(self._result.dtype), self._form)

    def _keep(self, _: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        self._units, self._result, self._version = args[0], output, output._version

    def _passed_on(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            first = output if isinstance(output, torch.Tensor) else output[0]
            # The same memory, which nothing has written to since, and no module in between that did more.
            same = (first.data_ptr(), first.shape) == (self._result.data_ptr(), self._result.shape)
            inside = self._outermost.rpartition(".")[0] == name
            if same and inside and self._result._version == self._version:
                self._outermost, self._form = name, form_of(output)

        return hook
