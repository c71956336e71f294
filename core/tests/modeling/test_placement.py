"""Layers on several devices: where accelerate's planner puts them, and that everything a layer needs goes there with it.

The machines that this was written on have no second device that computes. So a plan is made for given room; a run is spread over
names of the CPU, on which the requests to move are recorded; and a layer is put on the meta device, which is a device of its
own: torch refuses to mix its tensors with those of the CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import ExecutionError
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.placement import moved, place_layers
from anyblock.modeling.variants import LayerVariants
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

pytest.importorskip("accelerate")

CPU, OTHER, META = torch.device("cpu"), torch.device("cpu", 1), torch.device("meta")


class Pair(NamedTuple):
    left: torch.Tensor
    right: int


@contextmanager
def recorded() -> Iterator[Counter[torch.device]]:
    """Count the tensors that are asked to be on a device."""
    asked: Counter[torch.device] = Counter()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.Tensor.to and isinstance(args[-1], torch.device):
                asked[args[1]] += 1
            return function(*args, **(kwargs or {}))

    with Watch():
        yield asked


def engine_of(teacher_dir: Path, **options: Any) -> LayerwiseModel:
    return LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"), **options)


@pytest.mark.parametrize(
    ("room", "expected"),
    [([20, 20, 20], [4, 5, 3]), ([4, 20], [3, 9]), ([20, 4], [12, 0]), ([100, 100], [6, 6]), ([7, 3, 4], [6, 3, 3])],
)
def test_the_plan(room: list[int], expected: list[int]) -> None:
    """Room is in layers; one layer's of the first device is kept free by accelerate."""
    devices = [torch.device("cuda", index) for index in range(len(room))]
    with META:
        layers = [torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU()) for _ in range(12)]
    size = 4 * (16 * 16 + 16)
    places = place_layers(layers, {d: n * size for d, n in zip(devices, room, strict=True)}, torch.float32)
    assert places == sorted(places, key=devices.index)
    assert [places.count(device) for device in devices] == expected
    halves = place_layers(layers, {d: n * size // 2 for d, n in zip(devices, room, strict=True)}, torch.bfloat16)
    assert halves == places


def test_layers_that_do_not_fit_are_refused() -> None:
    layers = [torch.nn.Linear(16, 16) for _ in range(4)]
    with pytest.raises(ExecutionError, match="4 layers do not fit on cuda:0, cuda:1"):
        place_layers(layers, {torch.device("cuda:0"): 2 * 1088, torch.device("cuda:1"): 1088}, torch.float32)


def test_moved_reaches_every_tensor() -> None:
    one = torch.ones(2)
    value = {"a": (one, [one, None]), "b": Pair(one, 3), "c": "text"}
    found = moved(value, META)
    assert found["a"][0].is_meta
    assert found["a"][1][0].is_meta
    assert (type(found["b"]), found["b"].left.is_meta, found["b"].right) == (Pair, True, 3)
    assert found["c"] == "text"
    assert moved(value, CPU)["a"][0] is one


def test_a_run_over_two_devices_is_the_stock_models(llama_dir: Path, teacher_dir: Path, ids: torch.Tensor) -> None:
    engine = engine_of(teacher_dir, room={CPU: 10**6, OTHER: 10**6})
    assert engine.places == [CPU, OTHER, OTHER]
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(llama_dir).eval()(ids).logits
        batch = engine.prepare(ids)
        hidden = batch.hidden
        for index in range(3):
            with recorded() as asked:
                hidden = engine.run(index, hidden, batch)
            # Hidden states, cosine, sine and at least positions or a mask go there, and hidden states come back.
            assert (asked[OTHER] >= 4) == (index > 0)
            assert bool(asked[CPU]) == (index > 0)
        assert torch.equal(engine.logits(hidden, batch), expected)
        assert torch.equal(engine.model(ids).logits, expected)


@pytest.mark.parametrize("variant", [False, True])
def test_all_that_a_layer_receives_is_on_its_device(teacher_dir: Path, ids: torch.Tensor, variant: bool) -> None:
    engine = engine_of(teacher_dir)
    batch = engine.prepare(ids)
    engine.release()
    engine.places[1] = META
    layer = engine.use(1)
    narrow = engine.block_configs[1].with_ffn(no_op=True)
    tensors = engine.checkpoint.load("block_1_attention")
    with LayerVariants(engine, [[], [narrow], []]).layer(1, narrow, tensors) as other:
        layer = other if variant else layer
        assert all(parameter.is_meta for parameter in layer.parameters())
        seen: list[torch.Tensor] = []

        def keep(_: torch.nn.Module, *given: Any) -> None:
            seen.extend(leaf for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor))

        layer.register_forward_pre_hook(keep, with_kwargs=True)
        layer.self_attn.register_forward_hook(keep)
        # The layer has computed, on meta, when its result cannot be brought back: there are no numbers in it.
        with torch.no_grad(), pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            engine.run(1, batch.hidden, batch, layer=layer)
    assert len(seen) >= 5
    assert all(tensor.is_meta for tensor in seen)
