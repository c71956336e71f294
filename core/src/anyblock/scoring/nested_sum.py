"""A linear module inside a layer as a sum over its inputs, of which a smaller candidate has the first terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from anyblock.modeling.activation_cache import Answer, Form, answering, form_of, replayed


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
        self._parts: list[torch.Tensor] = []
        self._version = 0
        self._outermost = path
        self._form: Form = form_of(self._result)

    @property
    def width(self) -> int:
        """How many inputs the module has."""
        return self._weight.shape[-1]

    @contextmanager
    def watched(self, widths: Sequence[int] = ()) -> Iterator[None]:
        """Within this context the layer is run once, and the module's inputs and result are kept.

        Args:
            widths: ascending. A plain linear module adds its products up, and the sums over so many of its first inputs are
                kept as well.
        """
        self._outermost, self._parts = self._path, []
        summing = {self._path: self._in_parts(widths)} if widths and type(self._map) is nn.Linear else {}
        with replayed(self._layer, summing), ExitStack() as hooks:
            hooks.callback(self._map.register_forward_hook(self._keep).remove)
            names = self._path.split(".")
            for end in range(len(names) - 1, 0, -1):
                around = ".".join(names[:end])
                hook = self._layer.get_submodule(around).register_forward_hook(self._passed_on(around))
                hooks.callback(hook.remove)
            yield

    def begins_with(self, smaller: NestedSum) -> bool:
        """Return whether a candidate with fewer units is the beginning of this sum, and can be answered with a part of it."""
        if self._outermost == self._path or not (type(self._map) is type(smaller._map) is nn.Linear):
            return False
        first = self._units[..., : smaller.width]
        near = 64 * torch.finfo(first.dtype).eps * float(first.abs().max())
        alike = bool(((smaller._units - first).abs() <= near).all())
        return alike and torch.equal(smaller._weight, self._weight[:, : smaller.width])

    def parts(self) -> Iterator[tuple[str, Answer]]:
        """Yield, for each of the widths that were watched, which module of the layer would have answered what."""
        for part in self._parts:
            yield self._outermost, answering(part, self._form)

    def _in_parts(self, widths: Sequence[int]) -> Answer:
        """Return a forward of the linear module that adds up its products in pieces."""

        def forward(units: torch.Tensor) -> torch.Tensor:
            """Return the module's result, [..., out], of inputs [..., in]; running sums are kept in the dtype of the product."""
            wide = torch.promote_types(self._weight.dtype, torch.float32)
            bias = self._map.bias
            total = bias.to(wide) if isinstance(bias, torch.Tensor) else self._weight.new_zeros(1, dtype=wide)
            for start, end in pairwise((0, *widths, self.width)):
                product = nn.functional.linear(units[..., start:end], self._weight[:, start:end])
                total = total + product
                self._parts.append(total.to(product.dtype))
            return self._parts.pop()

        return forward

    def _keep(self, _: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        self._units, self._result, self._version = args[0], output, output._version

    def _passed_on(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            """Note that the module of this name hands the result on unchanged, if it does."""
            first = output if isinstance(output, torch.Tensor) else output[0]
            # The same memory, which nothing has written to since, and no module in between that did more.
            same = (first.data_ptr(), first.shape) == (self._result.data_ptr(), self._result.shape)
            inside = self._outermost.rpartition(".")[0] == name
            if same and inside and self._result._version == self._version:
                self._outermost, self._form = name, form_of(output)

        return hook
