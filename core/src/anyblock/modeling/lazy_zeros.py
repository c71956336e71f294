"""What a removed half adds to the residual stream, without being computed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch


def nothing_like(hidden: torch.Tensor, width: int | None = None) -> torch.Tensor:
    """Return zeros of the shape, dtype and device of `hidden`, to which adding costs nothing.

    In a compiled model they are ordinary zeros, which the compiler folds away.

    Args:
        hidden: [..., hidden].
        width: of the last dimension; None for that of `hidden`.
    """
    shape = hidden.shape if width is None else torch.Size((*hidden.shape[:-1], width))
    if torch.compiler.is_compiling():
        return hidden.new_zeros(shape)
    return _nothing(shape, hidden.dtype, hidden.device)


class Nothing(torch.Tensor):
    """Zeros that are never stored: `residual + nothing` is `residual` itself, and no kernel runs.

    A decoder layer of transformers adds what its halves return, sometimes after a dropout or a norm. Both of these
    return `Nothing` again. Any other use gets ordinary zeros and so the ordinary result (see "Extending PyTorch" in
    torch's documentation for `__torch_function__`).
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer an operation with `Nothing` among its arguments."""
        if func in _METADATA:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        if func in _SUMS and len(args) == 2 and not kwargs:
            first, second = args
            other = second if isinstance(first, Nothing) else first
            nothing = first if isinstance(first, Nothing) else second
            if isinstance(other, torch.Tensor) and (other.shape, other.dtype) == (nothing.shape, nothing.dtype):
                return other
        if func is torch.nn.functional.dropout:
            return args[0]
        return func(*_dense(args), **_dense(dict(kwargs or {})))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse what reaches the dispatcher past `__torch_function__`: there is no memory to read."""
        raise NotImplementedError(f"{func} on zeros that are not stored")


_METADATA: Final = {torch.Tensor.shape.__get__, torch.Tensor.dtype.__get__, torch.Tensor.device.__get__}  # type: ignore[attr-defined]
_SUMS: Final = {torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__radd__}


@functools.lru_cache(maxsize=64)
def _nothing(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.Tensor._make_wrapper_subclass(Nothing, shape, dtype=dtype, device=device)


def _dense(value: Any) -> Any:
    if isinstance(value, Nothing):
        return torch.zeros(value.shape, dtype=value.dtype, device=value.device)
    if isinstance(value, list | tuple):
        return type(value)(map(_dense, value))
    if isinstance(value, dict):
        return {name: _dense(part) for name, part in value.items()}
    return value
