"""Modules that stand in for a half of a decoder layer with one linear map of its hidden states.

Like `layer_scope` and `no_op`, this module needs torch and nothing else: it goes along with an exported checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from torch import nn

from .no_op import NO_OPS, NoOpAttention, NoOpFFN, NoOpNorm, NoOpResidual, hidden_states_of, in_form, layer_index_of


class LinearAttention(NoOpAttention):
    """An attention that is one linear map of the normed hidden states; it still advances the key-value cache.

    Args:
        width: the hidden size; the map is `linear.weight`, `[width, width]`, without a bias.
        returns: how many values the replaced module returns; 1 means a bare tensor, more a tuple padded with None.
        layer_idx: see `NoOpAttention`.
    """

    def __init__(self, *, width: int, returns: int, layer_idx: int | None) -> None:
        super().__init__(returns=returns, layer_idx=layer_idx)
        self.linear = nn.Linear(width, width, bias=False)

    @classmethod
    def replacing(cls, module: nn.Module, *, returns: int, width: int = 0) -> LinearAttention:
        """Return the map in place of `module`, with the layer index that it or a module inside it carries."""
        return cls(width=width, returns=returns, layer_idx=layer_index_of(module))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the map of the hidden states [batch, length, hidden], in the replaced module's form."""
        super().forward(*args, **kwargs)
        return in_form(self.linear(hidden_states_of(args, kwargs)), self.returns)


class LinearFFN(NoOpFFN):
    """A feed-forward half, or a mixer without a key-value cache, that is one linear map of the normed hidden states.

    Args:
        width: see `LinearAttention`.
        returns: see `LinearAttention`.
    """

    def __init__(self, *, width: int, returns: int = 1) -> None:
        super().__init__(returns=returns)
        self.linear = nn.Linear(width, width, bias=False)

    @classmethod
    def replacing(cls, module: nn.Module, *, returns: int, width: int | None = None) -> LinearFFN:
        """Return the map in place of `module`."""
        return cls(width=width or 0, returns=returns)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the map of the hidden states, in the replaced module's form."""
        return in_form(self.linear(hidden_states_of(args, kwargs)), self.returns)


StandIn: TypeAlias = NoOpAttention | NoOpFFN | NoOpNorm

STAND_INS: Final[dict[str, type[StandIn]]] = {
    **NO_OPS,
    "linear_attention": LinearAttention,
    "linear_ffn": LinearFFN,
}
"""All modules that stand in for a half's own, by the names that exported configurations use."""


def options_of(module: nn.Module) -> dict[str, Any]:
    """Return what `replacing` needs to make this stand-in again, besides the module that it replaces."""
    linear = getattr(module, "linear", None)
    wide = linear.in_features if isinstance(linear, nn.Linear) else getattr(module, "width", None)
    width = {} if wide is None else {"width": wide}
    argument = {"argument": module.argument} if isinstance(module, NoOpResidual) else {}
    return {"returns": getattr(module, "returns", 1), **argument, **width}


def replace_by_linear(layer: nn.Module, remove: Callable[[nn.Module], object], width: int) -> None:
    """Put a linear map in the place of the module that `remove` turns into a no-op; the half's norms stay.

    Args:
        layer: a built decoder layer.
        remove: turns that half of the layer into a no-op.
        width: the hidden size.

    Raises:
        NotImplementedError: the half is not one module between norms, or it is removed with modules of the adapter's own.
    """
    before: Mapping[str, nn.Module] = dict(layer.named_modules())
    remove(layer)
    placed = [(name, module) for name, module in layer.named_modules() if before.get(name) is not module]
    maps = [(name, module) for name, module in placed if type(module) in (NoOpAttention, NoOpFFN)]
    others = [(name, module) for name, module in placed if (name, module) not in maps]
    if len(maps) != 1 or any(not isinstance(module, NoOpNorm) for _, module in others):
        found = ", ".join(f"{name or 'the layer'}: {type(module).__name__}" for name, module in placed) or "nothing"
        raise NotImplementedError(f"what stands in for the removed half is {found}, not one no-op between norms")
    for name, _ in others:
        _put(layer, name, before[name])
    (name, no_op), *_ = maps
    if isinstance(no_op, NoOpAttention):
        _put(layer, name, LinearAttention(width=width, returns=no_op.returns, layer_idx=no_op.layer_idx))
    else:
        _put(layer, name, LinearFFN(width=width, returns=no_op.returns))


def _put(layer: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(layer.get_submodule(owner), leaf, module)
