"""`bench`: how fast models generate, next to one another on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from anyblock.contract.cost import Call, LatencyScenario, Timing
from anyblock.contract.services import services
from anyblock.errors import ExecutionError, UsageError

_SEED = 0


@dataclass(frozen=True)
class ModelSpeed:
    """One model's figures in a scenario.

    Attributes:
        first_token: ms from the prompts to the first generated token of each: prefill with a cache, head, argmax.
        decode: ms of one decoding step, the mean over the steps of a run, of which this is the median over runs.
        prefill_tokens_per_second: prompt tokens of the whole batch through `first_token`.
        decode_tokens_per_second: tokens of the whole batch that decoding gives; None when only one token is wanted.
        prefill_flops: floating-point operations of the prefill, as `torch.utils.flop_counter` counts them: matrix
            products and convolutions, and attention scores except in kernels that it does not know, such as the fused
            attention of the CPU. A multiplication and an addition are two.
        parameters: elements of all parameters; tied ones count once.
        weight_bytes: what they take.
        cache_bytes: the key-value cache after the prompts and all generated tokens but the last.
    """

    first_token: Timing
    decode: Timing | None
    prefill_tokens_per_second: float
    decode_tokens_per_second: float | None
    prefill_flops: int
    parameters: int
    weight_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class BenchResult:
    """Models next to one another.

    Attributes:
        models: figures by name, in the order they were given.
        scenario: batch, prompt length and generated tokens.
        device: where it was measured.
        dtype: what the first model computes in.
        repeats: runs that the medians are over.
    """

    models: dict[str, ModelSpeed]
    scenario: LatencyScenario
    device: str
    dtype: str
    repeats: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; times in ms."""
        return asdict(self)


@torch.no_grad()
def bench(
    models: Mapping[str, Any],
    scenario: LatencyScenario,
    *,
    repeats: int = 5,
) -> BenchResult:
    """Measure models against one another: first-token time, prefill and decoding speed, operations, memory.

    The models take turns within each repetition, and each repetition begins with another one, so that a slow phase of
    the machine falls on all of them; figures are medians. Decoding is greedy, on the stock class with its own cache.

    Args:
        models: loaded `PreTrainedModel`s by name, all on one device.
        scenario: batch size, tokens of each prompt, tokens to generate (at least 1; the prefill gives the first).
        repeats: runs that count.

    Raises:
        UsageError: nothing is to be generated, the models are on different devices, or the prompts and what is
            generated exceed a model's context.
        ExecutionError: a forward pass failed, for instance for want of memory.
    """
    device = _check(models, scenario)
    calls: dict[str, Call] = {}
    flops: dict[str, int] = {}
    caches: dict[str, int] = {}
    for name, model in models.items():
        session = _Session(model, scenario)
        try:
            flops[name] = session.prefill_flops()
            calls[f"{name}: prefill"] = Call(session.prefill, _nothing)
            if scenario.generated > 1:
                calls[f"{name}: decode"] = session.decode()
            caches[name] = session.cache_bytes()
        except RuntimeError as error:
            raise ExecutionError(
                f"{name} cannot run the scenario: {error}", hint="lower the batch size or the lengths"
            ) from error
    times = services().time_calls(calls, device=device, repeats=repeats)
    speeds = {
        name: _speed(
            model, scenario, times[f"{name}: prefill"], times.get(f"{name}: decode"), flops[name], caches[name]
        )
        for name, model in models.items()
    }
    first: Any = next(iter(models.values()))
    return BenchResult(speeds, scenario, str(device), str(first.dtype).removeprefix("torch."), repeats)


class _Session:
    """One model in the scenario: its prompts, and a cache that holds them."""

    def __init__(self, model: Any, scenario: LatencyScenario) -> None:
        self.model = model
        self.steps = scenario.generated - 1
        generator = torch.Generator().manual_seed(_SEED)  # the same prompts for every model of a vocabulary
        shape = (scenario.batch_size, scenario.prefill_length)
        self.prompts = torch.randint(0, model.get_input_embeddings().num_embeddings, shape, generator=generator)
        self.prompts = self.prompts.to(model.device)
        self.last = {"logits_to_keep": 1} if "logits_to_keep" in signature(self.model.forward).parameters else {}
        self.cache = services().new_cache(model)

    def forward(self, ids: torch.Tensor, cache: dict[str, Any]) -> torch.Tensor:
        """Return the most likely next tokens, [batch, 1], and let the cache grow."""
        logits = self.model(input_ids=ids, use_cache=True, **cache, **self.last).logits
        return torch.as_tensor(logits[:, -1:].argmax(dim=-1))

    def prefill(self) -> torch.Tensor:
        """Run the prompts with an empty cache."""
        return self.forward(self.prompts, services().new_cache(self.model))

    def prefill_flops(self) -> int:
        """Count the floating-point operations of a prefill; see `ModelSpeed.prefill_flops`."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.prefill()
        return int(counter.get_total_flops())

    def decode(self) -> Call:
        """Return the decoding steps after the prompts as a call that can be repeated."""
        first = self.forward(self.prompts, self.cache)
        return Call(partial(self._generate, first), services().restorer(*self.cache.values()))

    def _generate(self, token: torch.Tensor) -> None:
        for _ in range(self.steps):
            token = self.forward(token, self.cache)

    def cache_bytes(self) -> int:
        """Fill the cache as a whole run does, and return what its tensors take."""
        cache = services().new_cache(self.model)
        token = self.forward(self.prompts, cache)
        for _ in range(self.steps):
            token = self.forward(token, cache)
        layers = next(iter(cache.values())).layers
        held = {id(value): value for layer in layers for value in vars(layer).values()}
        return sum(value.nbytes for value in held.values() if isinstance(value, torch.Tensor))


def _nothing() -> None:
    """A reset that changes nothing: a call with a reset is never repeated within a sample."""


def _check(models: Mapping[str, Any], scenario: LatencyScenario) -> torch.device:
    """Return the device of all models, once the scenario has proved to fit them."""
    if not models:
        raise UsageError("no model to measure", expected="at least one")
    if scenario.generated < 1:
        raise UsageError("no token is to be generated", expected="at least 1")
    places = {model.device for model in models.values()}
    if len(places) > 1:
        raise UsageError(f"the models are on {', '.join(sorted(map(str, places)))}", expected="all on one device")
    length = scenario.prefill_length + scenario.generated
    for name, model in models.items():
        context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if isinstance(context, int) and 0 < context < length:
            raise UsageError(
                f"{scenario.prefill_length} prompt tokens and {scenario.generated} new ones exceed the context of {name}",
                expected=f"at most {context} together",
                hint="lower --prompt-length or --new-tokens",
            )
    return torch.device(places.pop())


def _speed(
    model: Any, scenario: LatencyScenario, first: Timing, decode: Timing | None, flops: int, cache: int
) -> ModelSpeed:
    steps = scenario.generated - 1
    step = None if decode is None else Timing(decode.median / steps, decode.spread / steps, decode.samples)
    batch = scenario.batch_size
    return ModelSpeed(
        first_token=first,
        decode=step,
        prefill_tokens_per_second=batch * scenario.prefill_length / first.median * 1000.0,
        decode_tokens_per_second=None if step is None else batch / step.median * 1000.0,
        prefill_flops=flops,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        cache_bytes=cache,
    )
