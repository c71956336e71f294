"""The cache of every layer as a model shows it when it runs, for mixers that no formula covers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from inspect import signature
from typing import Any, Final

import torch

from anyblock.costs.cache import CacheSpec
from anyblock.errors import UnsupportedModelError

_LENGTHS: Final = (2, 4)


@torch.no_grad()
def measured_caches(model: Any, layers: int) -> list[CacheSpec]:
    """Run a model on two short sequences and return what each of its decoder layers keeps.

    A model on the meta device will do: shapes are all that is looked at. Elements that grow with the length are kept for
    each token, within the window that the layer's cache names; the rest is fixed. What is float32 in a model of another
    dtype counts as `float32`.

    Raises:
        UnsupportedModelError: the model cannot be run there, or shows no cache by layers.
    """
    short, long = (_cache(model, length) for length in _LENGTHS)
    found = []
    for index in range(layers):
        kept = [_elements(cache, index) for cache in (short, long)]
        per_token, rest = divmod(sum(kept[1]) - sum(kept[0]), _LENGTHS[1] - _LENGTHS[0])
        if per_token < 0 or rest:
            raise UnsupportedModelError(
                f"the cache of layer {index} does not grow evenly with the length",
                expected="a number of elements for each token",
            )
        state = kept[0][1] if kept[0][1] == kept[1][1] else 0
        window = getattr(short[index], "sliding_window", None) if index < len(short) else None
        fixed = sum(kept[0]) - _LENGTHS[0] * per_token - state
        # A window of one token would keep none, but transformers slices with -0 then and keeps all.
        found.append(CacheSpec(per_token, window - 1 if window and window > 1 and per_token else None, fixed, state))
    return found


_NAMES: Final = ("past_key_values", "cache_params")
"""How transformers' models take and return their cache: those of Mamba alone have the second."""


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """Return a cache as an argument of a model's forward pass, under the name that the model has for it."""
    known = signature(model.forward).parameters
    return {next((name for name in _NAMES if name in known), _NAMES[0]): cache}


def cache_of_output(output: Any) -> Any:
    """Return the cache in what a model returned; None where there is none."""
    return next((found for name in _NAMES if (found := getattr(output, name, None)) is not None), None)


def cache_layers(cache: Any) -> list[Any] | None:
    """Return the layers of a transformers cache, of a decoder with cross-attention its own; None where it shows none."""
    layers = getattr(getattr(cache, "self_attention_cache", cache), "layers", None)
    return None if layers is None else list(layers)


def state_tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield every tensor with a dimension among the attributes of one layer's cache."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.dim():  # a windowed layer keeps its window as a tensor of one number, which is no state
                yield value
        elif isinstance(value, dict):
            yield from state_tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from state_tensors(value)


def _cache(model: Any, length: int) -> list[Any]:
    ids = torch.zeros(1, length, dtype=torch.long, device=model.device)
    try:
        layers = cache_layers(cache_of_output(model(input_ids=ids, use_cache=True)))
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not show its cache: {type(error).__name__}: {error}",
            expected="a model that runs on the meta device",
        ) from error
    if layers is None:
        raise UnsupportedModelError(f"{type(model).__name__} shows no cache by layers", expected="one for each layer")
    return layers


def _elements(layers: list[Any], index: int) -> tuple[int, int]:
    """Return the elements that one layer keeps: in the model's dtype, and in float32 beside it."""
    tensors = list(state_tensors(vars(layers[index]).values())) if index < len(layers) else []
    wide = sum(tensor.numel() for tensor in tensors if tensor.dtype == torch.float32)
    return sum(tensor.numel() for tensor in tensors) - wide, wide
