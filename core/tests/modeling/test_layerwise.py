"""Layer by layer equals the stock model, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.lazy_zeros import nothing_like
from transformers import AutoModelForCausalLM, LlamaForCausalLM


@pytest.fixture(scope="module")
def stock(llama_dir: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(llama_dir).eval()


@pytest.mark.parametrize("max_resident", [None, 1, 2])
def test_logits_and_hidden_states_are_the_stock_models(
    teacher_dir: Path, stock: LlamaForCausalLM, ids: torch.Tensor, max_resident: int | None
) -> None:
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"), max_resident=max_resident)
    with torch.no_grad():
        expected = stock(ids, output_hidden_states=True)
        batch = engine.prepare(ids)
        hidden = batch.hidden
        for index in range(engine.num_layers):
            assert torch.equal(hidden, expected.hidden_states[index])
            hidden = engine.run(index, hidden, batch)
        assert torch.equal(engine.final_hidden(hidden, batch), expected.hidden_states[-1])
        assert torch.equal(engine.logits(hidden, batch), expected.logits)
        assert torch.equal(engine.logits(hidden, batch, keep=slice(5, 11)), expected.logits[:, 5:11])
    resident = sum(not next(layer.parameters()).is_meta for layer in engine.layers)
    assert resident == (3 if max_resident is None else max_resident)


def test_batches_of_different_length_do_not_mix(teacher_dir: Path, stock: LlamaForCausalLM, ids: torch.Tensor) -> None:
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"))
    with torch.no_grad():
        long, short = engine.prepare(ids), engine.prepare(ids[:1, :7])
        outputs = []
        for batch in (long, short):
            hidden = batch.hidden
            for index in range(engine.num_layers):
                hidden = engine.run(index, hidden, batch)
            outputs.append(engine.logits(hidden, batch))
        assert torch.equal(outputs[0], stock(ids).logits)
        assert torch.equal(outputs[1], stock(ids[:1, :7]).logits)


class ScalesInPlace(torch.nn.Module):
    """A layer without halves, which multiplies what it would return (Gemma 4)."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        hidden = hidden + nothing_like(hidden)
        hidden *= 2.0
        return hidden


def test_a_layer_without_halves_leaves_what_it_is_given(teacher_dir: Path, ids: torch.Tensor) -> None:
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"))
    batch = engine.prepare(ids)
    before = batch.hidden.clone()
    assert torch.equal(engine.run(0, batch.hidden, batch, layer=ScalesInPlace()), 2 * before)
    assert torch.equal(batch.hidden, before)
