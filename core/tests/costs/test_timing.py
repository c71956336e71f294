"""Times: how they are taken, on a clock that only calls move, and on the halves of a real layer; and the model that adds up."""

from __future__ import annotations

import json

import pytest
import torch
from anyblock.contract.cost import Call, LatencyScenario, SubblockCalls
from anyblock.errors import ExecutionError, UsageError
from anyblock.measuring import timing
from anyblock.measuring.additive_model import AdditiveModel
from anyblock.measuring.timing import measure


class Clock:
    """A clock in seconds that stands still until a call says how many ms it took."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def perf_counter(self):
        return self.now

    def call(self, name, *ms, reset=False):
        times = iter(ms) if len(ms) > 1 else None

        def run():
            self.log.append(name)
            self.now += (next(times) if times else ms[0]) / 1000.0

        def undo():
            self.log.append(f"reset {name}")
            self.now += 1000.0

        return Call(run, undo if reset else None)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_median_and_spread_of_the_rounds_after_warm_up(clock):
    calls = {"a": clock.call("a", 900, 900, 1, 100, 3, 2, 5, reset=True)}
    found = measure(calls, warmup=2, repeats=5)["a"]
    assert found.median == pytest.approx(3)
    assert found.spread == pytest.approx(5 - 2)
    assert found.samples == 5


def test_rounds_are_interleaved_and_each_starts_elsewhere(clock):
    measure({name: clock.call(name, 5, reset=True) for name in "abc"}, warmup=0, repeats=3)
    order = [entry for entry in clock.log if not entry.startswith("reset")]
    assert "".join(order) == "abcbcacab"


def test_short_calls_are_repeated_until_a_sample_is_long_enough(clock):
    found = measure({"a": clock.call("a", 0.1)}, warmup=0, repeats=4, min_sample_ms=2.0)["a"]
    assert found.median == pytest.approx(0.1)
    assert len(clock.log) == 2 + 4 * 20  # two to find out how long one takes


def test_a_reset_follows_every_run_and_is_not_timed(clock):
    found = measure({"a": clock.call("a", 0.1, reset=True)}, warmup=1, repeats=2)["a"]
    assert clock.log == ["a", "reset a"] * 3
    assert found.median == pytest.approx(0.1)


def test_gradients_are_off():
    seen = []
    measure({"a": Call(lambda: seen.append(torch.is_grad_enabled()))}, warmup=0, repeats=1, min_sample_ms=0.0)
    assert set(seen) == {False}


def test_a_failing_call_is_named():
    def fail():
        raise RuntimeError("out of memory")

    with pytest.raises(ExecutionError, match="timing block_3_ffn failed: out of memory"):
        measure({"block_3_ffn": Call(fail)})
    with pytest.raises(UsageError, match="0 repeats"):
        measure({}, repeats=0)


def test_calibration_makes_the_sum_agree_with_a_whole_model():
    model = AdditiveModel(LatencyScenario(), {"fixed": 4.0, "a": 10.0, "b": 2.0})
    calibrated = model.calibrated(["a", "b"], measured=20.0)
    assert calibrated.factor == pytest.approx(1.25)
    assert calibrated.predict(["a", "b"]) == pytest.approx(20.0)
    assert calibrated.cost("b") == pytest.approx(2.5)
    again = calibrated.calibrated(["a"], measured=calibrated.predict(["a"]))
    assert again.factor == pytest.approx(calibrated.factor)
    assert AdditiveModel.from_dict(json.loads(json.dumps(calibrated.to_dict()))) == calibrated
    with pytest.raises(UsageError, match="nothing was measured for 'c'"):
        model.predict(["c"])
    with pytest.raises(UsageError, match="measured 0"):
        model.calibrated(["a"], measured=0.0)


def test_a_step_stands_for_the_middle_of_the_answer():
    scenario = LatencyScenario(batch_size=4, prefill_length=100, generated=50)
    assert scenario.past_length == 125
    with pytest.raises(UsageError, match="prefill 0"):
        LatencyScenario(prefill_length=0)


def test_halves_of_a_real_layer(build):
    """A wide ffn takes longer than a narrow one, decoding less than a prefill, and the cache is left as it was."""
    from transformers import DynamicCache

    model = build("llama", hidden_size=64, intermediate_size=4096, num_hidden_layers=1)
    layer, narrow = model.model.layers[0], build("llama", hidden_size=64, intermediate_size=16).model.layers[0]
    prompt, token = torch.randn(1, 64, 64), torch.randn(1, 1, 64)
    rotary = model.model.rotary_emb
    prompt_positions, token_positions = (rotary(prompt, torch.arange(64)[None]), rotary(token, torch.tensor([[66]])))
    cache = DynamicCache(config=model.config)
    cache.update(torch.randn(1, 2, 66, 16), torch.randn(1, 2, 66, 16), 0)
    past = cache.layers[0].keys, cache.layers[0].values

    def put_back():
        cache.layers[0].keys, cache.layers[0].values = past

    def ffn(block):
        return SubblockCalls(
            *(Call(lambda x=x: x + block.mlp(block.post_attention_layernorm(x))) for x in (prompt, token))
        )

    def attend(hidden, positions, **options):
        return layer.self_attn(
            layer.input_layernorm(hidden), position_embeddings=positions, attention_mask=None, **options
        )

    calls = {
        "attention": SubblockCalls(
            Call(lambda: attend(prompt, prompt_positions)),
            Call(lambda: attend(token, token_positions, past_key_values=cache), put_back),
        ),
        "wide": ffn(layer),
        "narrow": ffn(narrow),
    }
    prefill = measure({key: call.prefill for key, call in calls.items()}, repeats=3)
    decode = measure({key: call.decode for key, call in calls.items()}, repeats=3)
    assert prefill["wide"].median > 2 * prefill["narrow"].median
    assert decode["wide"].median < prefill["wide"].median
    assert cache.get_seq_length() == 66
