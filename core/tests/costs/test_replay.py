"""Layers replayed outside their model do what they do inside it, and their times add up to the model's."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from anyblock.contract.cost import Call, LatencyScenario
from anyblock.errors import ExecutionError
from anyblock.measuring import timing
from anyblock.measuring.additive_model import FIXED, AdditiveModel
from anyblock.measuring.replay import fixed_calls, layer_calls, model_calls, record_calls
from torch.utils.flop_counter import FlopCounterMode

SCENARIO = LatencyScenario(batch_size=2, prefill_length=7, generated=6)
MODELS = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "gpt_oss": {"num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 5, "head_dim": 8},
}


def first(output):
    return output if isinstance(output, torch.Tensor) else output[0]


def operations(call):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call.run()
    if call.reset is not None:
        call.reset()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_a_chain_of_replayed_layers_is_the_model(name, build):
    model = build(name, **MODELS[name])
    layers = model.model.layers
    recording = record_calls(model, layers, SCENARIO)
    assert [inputs.args[0].shape for inputs in recording.prefill.values()] == [(2, 7, 16)] * 4
    assert [inputs.args[0].shape for inputs in recording.past.values()] == [(2, 10, 16)] * 4
    assert [inputs.args[0].shape for inputs in recording.step.values()] == [(2, 1, 16)] * 4
    with torch.no_grad():
        for index in range(3):
            calls = layer_calls(layers[index], index, recording)
            assert torch.equal(first(calls.prefill.run()), recording.prefill[index + 1].args[0])
            once = first(calls.decode.run())
            assert torch.equal(once, recording.step[index + 1].args[0])
            calls.decode.reset()
            assert torch.equal(first(calls.decode.run()), once)


def test_a_variant_with_fewer_heads_gets_a_cache_of_its_own(build):
    model, narrow = build("llama"), build("llama", num_key_value_heads=1)
    recording = record_calls(model, model.model.layers, SCENARIO)
    calls = layer_calls(narrow.model.layers[2], 2, recording)
    with torch.no_grad():
        assert first(calls.decode.run()).shape == (2, 1, 16)


def test_nothing_generated_needs_no_cache(build):
    model = build("llama")
    recording = record_calls(model, model.model.layers, LatencyScenario(prefill_length=3, generated=0))
    assert recording.past is recording.step is None
    assert layer_calls(model.model.layers[0], 0, recording).decode is None


def test_a_layer_that_does_not_run_is_named(build):
    model = build("llama")
    with pytest.raises(ExecutionError, match="layer 4 ran 0 times"):
        record_calls(model, [*model.model.layers, torch.nn.Identity()], SCENARIO)
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)


def test_the_operations_of_the_parts_are_those_of_the_whole(build):
    """Time is only as additive as the machine lets it be; the operations that are timed have to add up exactly."""
    model = build("llama", num_hidden_layers=4)
    recording = record_calls(model, model.model.layers, SCENARIO)
    parts = [layer_calls(layer, index, recording) for index, layer in enumerate(model.model.layers)]
    parts.append(fixed_calls(model, model.model.norm, SCENARIO))
    whole = model_calls(model, SCENARIO)
    # Angles of positions are computed once for all layers, in older versions of transformers by a product.
    angles = [
        operations(Call(partial(model.model.rotary_emb, torch.zeros(1, 1), torch.arange(length)[None])))
        for length in (SCENARIO.prefill_length, 1)
    ]
    assert sum(operations(part.prefill) for part in parts) + angles[0] == operations(whole.prefill) > angles[0]
    assert sum(operations(part.decode) for part in parts) + angles[1] == operations(whole.decode) > angles[1]


def test_parts_add_up_to_the_whole(build, monkeypatch):
    """The clock counts multiplications, which do add up."""
    done = [0.0]

    def work(module, args, _):
        if isinstance(module, torch.nn.Linear):
            done[0] += args[0].numel() // args[0].shape[-1] * module.weight.numel() * 1e-6

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: done[0]))
    model = build("llama", hidden_size=128, intermediate_size=2048, num_hidden_layers=4)
    scenario = LatencyScenario(batch_size=4, prefill_length=60, generated=8)
    recording = record_calls(model, model.model.layers, scenario)
    calls = {str(i): layer_calls(layer, i, recording) for i, layer in enumerate(model.model.layers)}
    calls = {**calls, FIXED: fixed_calls(model, model.model.norm, scenario), "model": model_calls(model, scenario)}
    handle = torch.nn.modules.module.register_module_forward_hook(work)
    try:
        prefill, decode = (
            timing.measure({key: getattr(call, part) for key, call in calls.items()}, repeats=3)
            for part in ("prefill", "decode")
        )
    finally:
        handle.remove()
    times = {key: prefill[key].median + scenario.generated * decode[key].median for key in calls}
    latency = AdditiveModel(scenario, times)
    assert latency.predict(["0", "1", "2", "3"]) == pytest.approx(latency.subblocks["model"])
    assert latency.calibrated(["0", "1", "2", "3"], latency.subblocks["model"]).factor == pytest.approx(1.0)


@pytest.mark.parametrize("half", ["attention", "ffn"])
def test_a_layer_with_one_half_removed_times_the_other(half, build, family):
    model = build("llama")
    layer = model.model.layers[1]
    remove = family.mlp_no_op_post_init if half == "attention" else family.attn_no_op_post_init
    recording = record_calls(model, model.model.layers, SCENARIO)
    hidden = recording.step[1].args[0]
    with torch.no_grad():
        kept = layer.self_attn if half == "attention" else layer.mlp
        outputs = []
        handle = kept.register_forward_hook(lambda _, __, output: outputs.append(first(output)))
        assert remove(layer)
        calls = layer_calls(layer, 1, recording)
        assert torch.equal(first(calls.decode.run()), hidden + outputs[-1])
        handle.remove()
