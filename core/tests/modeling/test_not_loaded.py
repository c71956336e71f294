"""Tensors that are kept with a model and are no part of it: heads that predict further tokens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.hookspecs import hookimpl
from anyblock.conversion.convert import convert_with
from anyblock.costs.cost_model import model_costs
from anyblock.descriptors import DenseDescriptor
from anyblock.errors import CheckpointError
from anyblock.family import ModelFamily
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.load import load_model
from safetensors.torch import load_file, save_file

GROUP = "multi_token_prediction"


class Predicting(DenseDescriptor):
    decoder_layer = "transformers.models.llama.modeling_llama.LlamaDecoderLayer"
    _group = GROUP

    @hookimpl
    def layer_name_predicates(self, num_layers, config):
        return super().layer_name_predicates(num_layers, config) | {self._group: re.compile(r"mtp\..+")}


@pytest.fixture
def source(llama_dir: Path, tmp_path: Path) -> Path:
    """The tiny model with two tensors that transformers has no place for."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_bytes((llama_dir / "config.json").read_bytes())
    tensors = load_file(llama_dir / "model.safetensors")
    tensors |= {"mtp.0.weight": torch.ones(5, 7), "mtp.0.bias": torch.ones(5)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_they_are_kept_and_neither_loaded_nor_counted(source: Path, tmp_path: Path, llama_dir: Path, ids: torch.Tensor):
    family = ModelFamily.from_descriptor(Predicting, model_type="llama")
    converted = SubblockCheckpoint.open(convert_with(family, source, tmp_path / "converted"))
    assert sorted(converted.groups[GROUP]) == ["mtp.0.bias", "mtp.0.weight"]
    assert torch.equal(converted.load(GROUP)["mtp.0.weight"], torch.ones(5, 7))

    stock = load_model(llama_dir)
    expected = stock(ids).logits
    for options in ({}, {"attn_implementation": "sdpa"}):
        assert torch.equal(load_model(converted.path, family=family, **options)(ids).logits, expected)
    engine = LayerwiseModel(converted, family)
    batch = engine.prepare(ids)
    hidden = batch.hidden
    for index in range(engine.num_layers):
        hidden = engine.run(index, hidden, batch)
    torch.testing.assert_close(engine.logits(hidden, batch), expected)

    shapes = {group: converted.meta(group) for group in converted.groups}
    costs = model_costs(family, stock.config, converted.block_configs, shapes)
    assert costs.params == sum(parameter.numel() for parameter in stock.parameters())


def test_other_tensors_without_a_place_in_the_model_are_an_error(source: Path, tmp_path: Path):
    family = ModelFamily.from_descriptor(type("Other", (Predicting,), {"_group": "further"}), model_type="llama")
    with pytest.raises(CheckpointError, match=r"no place for 2 tensors: 'mtp\.0\.bias'"):
        convert_with(family, source, tmp_path / "converted")
    with pytest.raises(CheckpointError, match=r"no place for 2 tensors: 'mtp\.0\.bias'"):
        load_model(source)
