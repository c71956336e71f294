"""Phi-3 with 128k tokens of context: rotary frequencies depend on the length of the text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import convert_model, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock_conformance.subject import stock_model
from anyblock_conformance.tiny import save_tiny


@pytest.mark.parametrize("length", [8, 40], ids=["within", "beyond"])
@torch.no_grad()
def test_both_sets_of_frequencies_are_those_of_the_stock_model(length: int, tmp_path: Path) -> None:
    family = get_family("phi3")
    config = family.conformance_config()
    config.original_max_position_embeddings = 16
    config.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 16,
        "long_factor": [4.0, 9.0],
        "short_factor": [1.0, 1.5],
    }
    source = save_tiny(config, tmp_path / "source")
    ids = torch.randint(0, 128, (1, length), generator=torch.Generator().manual_seed(0))
    expected = stock_model(source)(ids).logits
    teacher = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    torch.testing.assert_close(load_model(teacher.path)(ids).logits, expected)
    engine = LayerwiseModel(teacher, family)
    batch = engine.prepare(ids)
    hidden = batch.hidden
    for index in range(engine.num_layers):
        hidden = engine.run(index, hidden, batch)
    torch.testing.assert_close(engine.logits(hidden, batch), expected)
