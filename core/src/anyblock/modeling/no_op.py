"""Modules that stand in for a removed half of a decoder layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import torch
from torch import nn

from .lazy_zeros import nothing_like

INDEX_NAMES: Final = ("layer_idx", "layer_id", "layer_index", "idx", "layer_number")
"""The usual names of a layer's index, as an argument of constructors and as an attribute of modules."""
BUILDING: Final[ContextVar[int | None]] = ContextVar("building_layer", default=None)
"""The index of the layer whose halves are being replaced, for modules that call it otherwise; see `layer_scope`."""
_CACHE_ARGUMENTS: Final = ("past_key_values", "past_key_value", "layer_past")


class NoOpAttention(nn.Module):
    """An attention that adds nothing to the residual stream but still advances the key-value cache.

    transformers reads the number of past tokens from the cache's first attention layer. If that layer kept nothing,
    cached decoding would run with wrong positions, so one head of one dimension is written instead.

    Args:
        returns: how many values the replaced module returns; 1 means a bare tensor, more a tuple padded with None, and -n a
            list of n (GPT).
        layer_idx: the layer's index in the cache; None for a mixer that keeps its state elsewhere.
    """

    def __init__(self, *, returns: int, layer_idx: int | None) -> None:
        super().__init__()
        self.returns = returns
        self.layer_idx = layer_idx

    @classmethod
    def replacing(cls, module: nn.Module, *, returns: int) -> NoOpAttention:
        """Return the no-op for `module`, with the layer index that it or a module inside it carries."""
        made = cls(returns=returns, layer_idx=layer_index_of(module))
        for name, value in vars(module).items():  # model classes ask modules of layers for switches (Gemma 4)
            if isinstance(value, bool) and not name.startswith("_") and name != "training":
                setattr(made, name, value)
        return made

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return `Nothing` of the hidden states' shape [batch, length, hidden], in the replaced module's form."""
        hidden = hidden_states_of(args, kwargs)
        cache = cache_of(args, kwargs)
        if cache is not None and self.layer_idx is not None:
            entry = hidden.new_zeros(hidden.shape[0], 1, hidden.shape[1], 1)
            # Decoders that can attend to an encoder keep their own keys and values in a part of the cache.
            getattr(cache, "self_attention_cache", cache).update(entry, entry, self.layer_idx)
        return in_form(nothing_like(hidden), self.returns)


class NoOpFFN(nn.Module):
    """A feed-forward half that adds nothing to the residual stream.

    Args:
        returns: see `NoOpAttention`.
        width: of what it returns where that is not the width of what it receives; None where it is.
    """

    def __init__(self, *, returns: int = 1, width: int | None = None) -> None:
        super().__init__()
        self.returns = returns
        self.width = width

    @classmethod
    def replacing(cls, module: nn.Module, *, returns: int, width: int | None = None) -> NoOpFFN:
        """Return the no-op for `module`."""
        return cls(returns=returns, width=width)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return `Nothing` of the hidden states' shape, or as wide as is said, in the replaced module's form.

        Where the module would return a state after it, the state that it is given in the same place stays as it is.
        """
        found = in_form(nothing_like(hidden_states_of(args, kwargs), self.width), self.returns)
        if isinstance(found, tuple):
            states = (value if isinstance(value, tuple | list) else None for value in args[1 : len(found)])
            found = (found[0], *states, *[None] * (len(found) - max(1, len(args))))
        return found


class NoOpResidual(NoOpAttention):
    """A half whose module adds the residual itself (Bloom, MPT): it returns the residual that it is given.

    Args:
        argument: the name of the argument with the residual, or the place of a positional one.
        returns: how many values the replaced module returns.
        layer_idx: see `NoOpAttention`; None for an ffn.
    """

    def __init__(self, *, argument: str, returns: int, layer_idx: int | None) -> None:
        super().__init__(returns=returns, layer_idx=layer_idx)
        self.argument = argument

    @classmethod
    def replacing(cls, module: nn.Module, *, returns: int, argument: str = "residual") -> NoOpResidual:
        """Return the no-op for `module`, with the layer index that it or a module inside it carries."""
        return cls(argument=argument, returns=returns, layer_idx=layer_index_of(module))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the residual, in the replaced module's form."""
        super().forward(*args, **kwargs)
        residual = kwargs[self.argument] if self.argument in kwargs else args[int(self.argument)]
        return in_form(residual, self.returns)


class NoOpNorm(nn.Identity):
    """Stands in for the norm of a removed half: nothing is computed, nothing is stored.

    Args:
        norm: the norm that goes; layers ask some norms' weights for their type.
    """

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        like = getattr(norm, "weight", None)
        if isinstance(like, torch.Tensor):
            # A buffer, so that it changes its type with the model, and one that no checkpoint has to hold.
            self.register_buffer("weight", torch.empty(0, dtype=like.dtype, device=like.device), persistent=False)

    @classmethod
    def replacing(cls, module: nn.Module, *, returns: int) -> NoOpNorm:
        """Return the no-op for `module`, which returns one value."""
        return cls(module)


NO_OPS: Final[dict[str, type[NoOpAttention | NoOpFFN | NoOpNorm]]] = {
    "attention": NoOpAttention,
    "ffn": NoOpFFN,
    "residual": NoOpResidual,
    "typed_norm": NoOpNorm,  # as earlier exports call it
    "norm": NoOpNorm,
}
"""The modules that stand in for removed ones, by the names that exported configurations use."""


def remove_half(decoder_layer: nn.Module, name: str, no_op: nn.Module, norms: Iterable[str]) -> None:
    """Replace the module `name` of a layer by `no_op`, and the norms that only it used by `NoOpNorm`."""
    setattr(decoder_layer, name, no_op)
    for norm in norms:
        setattr(decoder_layer, norm, NoOpNorm(getattr(decoder_layer, norm)))


def hidden_states_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the hidden states from a layer's or branch's arguments: `hidden_states`, else the first positional one.

    Raises:
        TypeError: there is no tensor in either place.
    """
    hidden = kwargs.get("hidden_states")
    if hidden is None:
        hidden = kwargs.get("x", args[0] if args else None)
    if not isinstance(hidden, torch.Tensor):
        raise TypeError("no hidden states among the arguments")
    return hidden


def layer_index_of(module: nn.Module) -> int | None:
    """Return the layer index that a module or one inside it carries, else that of the layer being built; or None."""
    found = (getattr(part, name, None) for part in module.modules() for name in INDEX_NAMES)
    return next((index for index in found if isinstance(index, int)), BUILDING.get())


def cache_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the key-value cache among a branch's arguments: by its name, else whatever counts past tokens; or None."""
    named = (kwargs[name] for name in _CACHE_ARGUMENTS if kwargs.get(name) is not None)
    others = (value for value in (*args, *kwargs.values()) if hasattr(value, "get_seq_length"))
    return next(named, next(others, None))


def in_form(value: torch.Tensor, returns: int) -> Any:
    """Return `value` as a module does that returns so many values: bare, or first in a tuple or list padded with None."""
    if returns < 0:
        return [value, *[None] * (-returns - 1)]
    return value if returns == 1 else (value, *[None] * (returns - 1))
