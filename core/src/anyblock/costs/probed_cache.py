"""The cache of every layer as a model shows it when it runs, for mixers that no formula covers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

import torch
from torch import nn

from anyblock.contract.cache_spec import CacheSpec
from anyblock.errors import UnsupportedModelError

_LENGTHS: Final = (2, 4)
_BATCH: Final = 2
_NAMES: Final = ("past_key_values", "cache_params")
"""How transformers' models take and return their cache: those of Mamba alone have the second."""
_RESULTS: Final = {
    "loss",
    "aux_loss",
    "z_loss",
    "logits",
    "hidden_states",
    "attentions",
    "router_logits",
    "cross_attentions",
}
"""What a model returns that is not for the next decoding step."""


@dataclass(frozen=True)
class Kept:
    """What one decoder layer keeps for the tokens after those it has seen.

    Attributes:
        tensors: the keys, values and states of all sequences.
        window: tokens that its part of the cache goes back; None for all.
    """

    tensors: tuple[torch.Tensor, ...]
    window: int | None = None


def measured_caches(model: Any, layers: Sequence[nn.Module]) -> list[CacheSpec]:
    """Run a model on short sequences of two lengths and return what each of its decoder layers keeps.

    A model on the meta device will do: shapes are all that is looked at. Elements that grow with the length are kept for
    each token, within the window that the layer's cache names; the rest is fixed. What is float32 in a model of another
    dtype counts as `float32`.

    Args:
        model: which takes `use_cache`.
        layers: its decoder layers.

    Raises:
        UnsupportedModelError: the model cannot be run there, or does not show what its layers keep.
    """
    short, long = (_kept(model, layers, length) for length in _LENGTHS)
    found = []
    for index in range(len(layers)):
        kept = [_elements(state[index]) for state in (short, long)]
        per_token, rest = divmod(sum(kept[1]) - sum(kept[0]), _LENGTHS[1] - _LENGTHS[0])
        if per_token < 0 or rest:
            raise UnsupportedModelError(
                f"the cache of layer {index} does not grow evenly with the length",
                expected="a number of elements for each token",
            )
        state = kept[0][1] if kept[0][1] == kept[1][1] else 0
        window = short[index].window
        fixed = sum(kept[0]) - _LENGTHS[0] * per_token - state
        # A window of one token would keep none, but transformers slices with -0 then and keeps all.
        found.append(CacheSpec(per_token, window - 1 if window and window > 1 and per_token else None, fixed, state))
    return found


@torch.no_grad()
def kept_by_layers(model: Any, layers: Sequence[nn.Module], ids: torch.Tensor) -> list[Kept]:
    """Run a model on tokens and return what each of its decoder layers keeps for the tokens after them.

    It is kept in the layer's part of the cache, or as attributes of its modules (RecurrentGemma), which are put back to what
    they were. A model without any cache (GPT) keeps nothing and computes everything again.

    Args:
        model: which takes `use_cache`.
        layers: its decoder layers.
        ids: the tokens, [batch, length].

    Raises:
        UnsupportedModelError: the model keeps something in a place that belongs to no layer.
    """
    parts = [module for layer in layers for module in layer.modules()]
    before = {id(module): dict(vars(module)) for module in parts}
    try:
        output, cache = run_with_cache(model, ids)
        held = [list(_held(layer, before, len(ids))) for layer in layers]
    finally:
        for module in parts:
            vars(module).clear()
            vars(module).update(before[id(module)])
    cached = _parts(cache, len(layers))
    if cached is None:
        others = sorted(set(output) - _RESULTS)
        if cache is not None or others:
            raise UnsupportedModelError(
                f"{type(model).__name__} shows no cache by layers, but {', '.join(others) or type(cache).__name__}",
                expected="past_key_values with one part for each layer",
            )
        cached = []
    found = []
    for index, tensors in enumerate(held):
        own = cached[index] if index < len(cached) else {}
        once = {id(tensor): tensor for tensor in (*_tensors(own.values()), *tensors)}
        found.append(Kept(tuple(once.values()), own.get("sliding_window")))  # keys may be the values (DeepSeek-V4)
    return found


def run_with_cache(model: Any, ids: torch.Tensor, cache: Any = None) -> tuple[Any, Any]:
    """Run a model on tokens after those that a cache has seen; returns what it returns, and the cache after them.

    A model that takes a cache and returns none (RecurrentGemma) is given one, as `generate` does.

    Args:
        model: which takes `use_cache`.
        ids: the tokens, [batch, length].
        cache: what this function returned for the tokens before; None at the start.
    """
    output = model(input_ids=ids, use_cache=True, **cache_argument(model, cache))
    found = cache_of_output(output)
    if found is None and cache is None and _NAMES[0] in signature(model.forward).parameters:
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)
        output = model(input_ids=ids, use_cache=True, past_key_values=cache)
    return output, cache if found is None else found


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """Return a cache as an argument of a model's forward pass, under the name that the model has for it."""
    known = signature(model.forward).parameters
    return {next((name for name in _NAMES if name in known), _NAMES[0]): cache}


def cache_of_output(output: Any) -> Any:
    """Return the cache in what a model returned; None where there is none."""
    return next((found for name in _NAMES if (found := getattr(output, name, None)) is not None), None)


def _parts(cache: Any, layers: int) -> list[Mapping[str, Any]] | None:
    """Return what a cache holds of each layer, of a decoder with cross-attention its own; None where it does not show it."""
    own = getattr(getattr(cache, "self_attention_cache", cache), "layers", None)
    if own is not None:
        return [vars(part) for part in own]
    for name, value in vars(cache).items() if hasattr(cache, "__dict__") else ():
        if isinstance(value, dict) and value.keys() == set(range(layers)):  # states by layers (xLSTM)
            return [{name: value[index]} for index in range(layers)]
    return None


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield every tensor with a dimension among the attributes of one layer's cache."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.dim():  # a windowed layer keeps its window as a tensor of one number, which is not state
                yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _held(layer: nn.Module, before: Mapping[int, Mapping[str, Any]], batch: int) -> Iterator[torch.Tensor]:
    """Yield the tensors of every sequence that modules of a layer have as new attributes since then."""
    for module in layer.modules():
        for name, value in vars(module).items():
            new = isinstance(value, torch.Tensor) and value is not before[id(module)].get(name)
            if new and value.dim() and len(value) == batch:
                yield value


def _kept(model: Any, layers: Sequence[nn.Module], length: int) -> list[Kept]:
    ids = torch.zeros(_BATCH, length, dtype=torch.long, device=model.device)
    try:
        return kept_by_layers(model, layers, ids)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not show its cache: {type(error).__name__}: {error}",
            expected="a model that runs on the meta device",
        ) from error


def _elements(kept: Kept) -> tuple[int, int]:
    """Return the elements that one layer keeps for a sequence: in the model's dtype, and in float32."""
    wide = sum(tensor.numel() for tensor in kept.tensors if tensor.dtype == torch.float32)
    whole = sum(tensor.numel() for tensor in kept.tensors)
    return (whole - wide) // _BATCH, wide // _BATCH
