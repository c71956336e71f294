"""Real decoder layers as calls that can be timed: record once what each receives, then replay it on any variant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from anyblock.contract.cost import Call, LatencyScenario, SubblockCalls
from anyblock.costs.probed_cache import cache_argument
from anyblock.errors import ExecutionError


@dataclass(frozen=True)
class LayerInputs:
    """What one layer receives in one forward pass; `cache` is the pass's cache, which is among the values."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    cache: Any = None

    def run(self, module: nn.Module, cache: Any = None) -> Any:
        """Run `module` on these inputs, with `cache` in the recorded one's place."""
        args = [cache if self.cache is not None and value is self.cache else value for value in self.args]
        kwargs = {
            name: cache if self.cache is not None and value is self.cache else value
            for name, value in self.kwargs.items()
        }
        return module(*args, **kwargs)


Inputs = dict[int, LayerInputs]
"""By layer index."""


@dataclass(frozen=True)
class Recording:
    """Inputs of layers in a scenario.

    Attributes:
        prefill: of the prompts, without a cache.
        past: of as many tokens as lie before the timed decoding step, with a cache; None when nothing is generated.
        step: of the decoding step.
        new_cache: makes an empty cache.
    """

    prefill: Inputs
    past: Inputs | None
    step: Inputs | None
    new_cache: Callable[[], Any]


@torch.no_grad()
def record_calls(
    model: Any, layers: Sequence[nn.Module], scenario: LatencyScenario, *, only: Collection[int] | None = None
) -> Recording:
    """Run the scenario's passes through a whole model and keep what each decoder layer receives.

    Args:
        model: a `PreTrainedModel`, the teacher; its tokens are all 0, since values do not matter for time.
        layers: its decoder layers in order.
        scenario: see `LatencyScenario`.
        only: keep the inputs of these layers; None keeps all.

    Raises:
        ExecutionError: a layer did not run exactly once in a pass.
    """
    new_cache = partial(new_cache_of, model.config)
    kept = range(len(layers)) if only is None else only
    prefill = _record_pass(model, layers, _tokens(model, scenario, scenario.prefill_length), None, kept)
    if not scenario.generated:
        return Recording(prefill, None, None, new_cache)
    cache = new_cache()
    past = _record_pass(model, layers, _tokens(model, scenario, scenario.past_length), cache, kept)
    step = _record_pass(model, layers, _tokens(model, scenario, 1), cache, kept)
    return Recording(prefill, past, step, new_cache)


@torch.no_grad()
def layer_calls(module: nn.Module, layer_index: int, recording: Recording) -> SubblockCalls:
    """Return the calls that time a variant of layer `layer_index`.

    A layer of which one half is a no-op times the other half. The variant may have other key-value heads than the
    recorded layer: its own pass over the past fills the cache that its decoding steps start from.

    Args:
        module: the built layer, constructed for this layer index.
        layer_index: whose inputs it receives.
        recording: from `record`.
    """
    prefill = Call(partial(recording.prefill[layer_index].run, module))
    if recording.past is None or recording.step is None:
        return SubblockCalls(prefill)
    cache = recording.new_cache()
    recording.past[layer_index].run(module, cache)
    return SubblockCalls(prefill, Call(partial(recording.step[layer_index].run, module, cache), restorer(cache)))


@torch.no_grad()
def fixed_calls(model: Any, norm: nn.Module, scenario: LatencyScenario) -> SubblockCalls:
    """Return the calls that time what is outside the layers: embedding, final norm, and head at the last position.

    Args:
        model: a `PreTrainedModel`.
        norm: its final norm.
        scenario: see `LatencyScenario`.
    """
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()

    def forward(ids: torch.Tensor) -> object:
        return head(norm(embed(ids))[:, -1:])

    run = partial(_with_trainable_head, model, forward)
    prefill = Call(partial(run, _tokens(model, scenario, scenario.prefill_length)))
    return SubblockCalls(prefill, Call(partial(run, _tokens(model, scenario, 1))) if scenario.generated else None)


@torch.no_grad()
def model_calls(model: Any, scenario: LatencyScenario) -> SubblockCalls:
    """Return the calls that time a whole model, to calibrate the sum of its parts with."""
    last = {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
    run = partial(_with_trainable_head, model, model)
    prefill = Call(partial(run, _tokens(model, scenario, scenario.prefill_length), use_cache=False, **last))
    if not scenario.generated:
        return SubblockCalls(prefill)
    cache = new_cache_of(model.config)
    model(_tokens(model, scenario, scenario.past_length), use_cache=True, **cache_argument(model, cache), **last)
    step = partial(run, _tokens(model, scenario, 1), use_cache=True, **cache_argument(model, cache), **last)
    return SubblockCalls(prefill, Call(step, restorer(cache)))


def _with_trainable_head(model: Any, forward: Callable[..., object], *args: Any, **kwargs: Any) -> object:
    """Run `forward` as in a model that `load_model` returns; see there for why torch is faster with such a head."""
    weight = model.get_output_embeddings().weight
    before = weight.requires_grad
    weight.requires_grad_(True)
    try:
        return forward(*args, **kwargs)
    finally:
        weight.requires_grad_(before)


def new_cache_of(config: Any) -> Any:
    """Return an empty key-value cache for a model of this config."""
    from transformers import DynamicCache

    return DynamicCache(config=config)


def _tokens(model: Any, scenario: LatencyScenario, length: int) -> torch.Tensor:
    return torch.zeros(scenario.batch_size, length, dtype=torch.long, device=model.device)


def _record_pass(
    model: Any, layers: Sequence[nn.Module], ids: torch.Tensor, cache: Any, kept: Collection[int]
) -> Inputs:
    found: Inputs = {}
    runs = [0] * len(layers)

    def keep(index: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        runs[index] += 1
        if index in kept:
            found[index] = LayerInputs(args, dict(kwargs), cache)

    handles = [
        layer.register_forward_pre_hook(partial(keep, index), with_kwargs=True) for index, layer in enumerate(layers)
    ]
    try:
        model(ids, use_cache=cache is not None, **cache_argument(model, cache))
    finally:
        for handle in handles:
            handle.remove()
    for index, count in enumerate(runs):
        if count != 1:
            raise ExecutionError(f"layer {index} ran {count} times in one forward pass", expected="once")
    return found


def restorer(cache: Any) -> Callable[[], None]:
    """Return a function that puts a cache back into its present state."""
    # A step puts new tensors into the cache's layers, so that holding on to the old ones is enough to go back.
    states = [dict(vars(layer)) for layer in cache.layers]

    def restore() -> None:
        for layer, state in zip(cache.layers, states, strict=True):
            vars(layer).clear()
            vars(layer).update(state)

    return restore
