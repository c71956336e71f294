"""What holds for the exports of every family: a child with removed and smaller halves, in core's own formats."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, export_child, get_family, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.config_view import config_view, layer_view
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import UnsupportedModelError
from anyblock.extensions import installed_plugins
from anyblock.realize.realize import realize

FAMILIES = [name for name in installed_plugins().model_types if name != "example"]
BY_TYPE = ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")
"""Families whose unpruned layers differ by their types, within which transformers wants them alike."""
IDS = torch.arange(1, 13).reshape(1, 12)


@pytest.fixture(scope="module", params=FAMILIES)
def child(
    request: pytest.FixtureRequest, tiny_teacher: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> SubblockCheckpoint:
    """The first attention and the last ffn are removed; other attentions have one kv head, other dense ffns 16 channels."""
    family = get_family(request.param)
    config = family.conformance_config()
    teacher = SubblockCheckpoint.open(tiny_teacher(request.param))
    blocks, kinds = teacher.block_configs, family.pruning_mixins()
    attentions = [index for index, block in enumerate(blocks) if not block.attention.no_op]
    ffns = [index for index, block in enumerate(blocks) if not block.ffn.no_op]
    chosen = [
        Candidate(attentions[0], "attention", NO_OP, 0, blocks[attentions[0]].with_attention(no_op=True)),
        Candidate(ffns[-1], "ffn", NO_OP, 0, blocks[ffns[-1]].with_ffn(no_op=True)),
    ]
    orders: dict[Any, torch.Tensor] = {}
    for index in attentions[1:]:
        heads = blocks[index].attention.num_key_value_heads
        if heads and "kv_heads" in kinds:
            smaller = blocks[index].with_attention(num_key_value_heads=1)
            chosen.append(Candidate(index, "attention", "kv_heads", 1, smaller))
            orders[index, "kv_heads"] = torch.arange(heads)
    for index in ffns[:-1]:
        width = blocks[index].ffn.intermediate_size
        if width and "ffn_intermediate" in kinds:
            chosen.append(Candidate(index, "ffn", "ffn_intermediate", 16, blocks[index].with_ffn(intermediate_size=16)))
            orders[index, "ffn_intermediate"] = torch.arange(width)
    text = family.language_model_config(config)
    weights = CandidateWeights(teacher, family, text, orders)
    return SubblockCheckpoint.open(realize(teacher, chosen, weights, tmp_path_factory.mktemp("child") / "child"))


def test_transformers_builds_the_child_without_anyblock(child: SubblockCheckpoint, tmp_path: Path) -> None:
    """Its logits are those of the child, with and without a cache, loaded again after saving, and without remote code."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    if child.config["model_type"] in BY_TYPE:
        with pytest.raises(UnsupportedModelError, match="layers of one type be alike"):
            export_child(child.path, tmp_path / "out", "transformers")
        return
    out = export_child(child.path, tmp_path / "out", "transformers")
    expected = load_model(child.path)(IDS, use_cache=False).logits
    auto = AutoModelForImageTextToText if "text_config" in child.config else AutoModelForCausalLM
    # What `auto` does with trust_remote_code where AnyBlock is not imported.
    code = get_class_from_dynamic_module(json.loads((out / "config.json").read_text())["auto_map"][auto.__name__], out)
    model = code.from_pretrained(out, dtype="auto").eval()
    home = type(model).__module__
    assert home.startswith("transformers_modules.")
    files = {module.__name__ for name, module in sys.modules.items() if name.startswith(home.rpartition(".")[0])}
    assert any(name.endswith(".no_op") for name in files)
    assert torch.equal(model(IDS, use_cache=False).logits, expected)
    assert torch.equal(load_model(out)(IDS, use_cache=False).logits, expected)
    first = model(IDS[:, :8], use_cache=True)
    second = model(IDS[:, 8:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(second.logits, expected[:, 8:], rtol=1e-3, atol=1e-3)
    model.save_pretrained(tmp_path / "again")
    again = code.from_pretrained(tmp_path / "again", dtype="auto").eval()
    assert torch.equal(again(IDS, use_cache=False).logits, expected)
    without_remote_code = auto.from_pretrained(out, dtype="auto").eval()
    assert type(without_remote_code).__module__ == "anyblock.modeling.modeling_anyblock"
    assert torch.equal(without_remote_code(IDS, use_cache=False).logits, expected)


def test_a_child_is_saved_and_converted_again(child: SubblockCheckpoint, tmp_path: Path) -> None:
    """Loaded by AnyBlock and by transformers' own classes, in its own folder and elsewhere."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto = AutoModelForImageTextToText if "text_config" in child.config else AutoModelForCausalLM
    child = SubblockCheckpoint.open(shutil.copytree(child.path, tmp_path / "child"))  # which is written to
    expected = load_model(child.path)(IDS, use_cache=False).logits
    saved, loaders = child.path, [load_model, lambda path: auto.from_pretrained(path, dtype="auto").eval()]
    if child.config["model_type"] in BY_TYPE:
        with pytest.raises(UnsupportedModelError, match="layers of one type be alike"):
            loaders.pop()(saved)
    for number, load in enumerate(loaders):
        model = load(saved)
        assert torch.equal(model(IDS, use_cache=False).logits, expected)
        for saved in (tmp_path / f"saved-{number}", child.path):
            model.save_pretrained(saved)
            assert torch.equal(load_model(saved)(IDS, use_cache=False).logits, expected)
            converted = convert_model(saved, tmp_path / f"converted-{number}-{saved.name}")
            assert torch.equal(load_model(converted)(IDS, use_cache=False).logits, expected)
            assert SubblockCheckpoint.open(converted).block_configs == child.block_configs


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_teacher_is_exported_as_the_stock_checkpoint_that_it_is(
    model_type: str, tiny_teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    """No code comes along, and the configuration is the source's."""
    teacher = tiny_teacher(model_type)
    out = export_child(teacher, tmp_path / "out", "transformers")
    assert json.loads((out / "config.json").read_text()) == SubblockCheckpoint.open(teacher).config
    assert not list(out.glob("*.py"))


def test_anymodel_names_the_stock_architecture_and_what_layers_differ_in(
    child: SubblockCheckpoint, tmp_path: Path
) -> None:
    """From the layers' entries over the rest of the configuration, the child's block configs come back."""
    out = export_child(child.path, tmp_path / "out", "anymodel")
    config = json.loads((out / "config.json").read_text())
    family = get_family(child.config["model_type"])
    assert config["architectures"] == ["AnyModel"]
    assert config["base_architecture"] == type(load_model(child.path)).__name__
    text = config.get("text_config", config)
    whole = family.create_block_configs(family.conformance_config())
    for index, (block, unpruned) in enumerate(zip(child.block_configs, whole, strict=True)):
        layer = text["per_layer_config"].get(str(index), {})
        removed = [block.attention.no_op and not unpruned.attention.no_op, block.ffn.no_op and not unpruned.ffn.no_op]
        assert layer.pop("skip", []) == [name for name, gone in zip(("attention", "mlp"), removed, strict=True) if gone]
        for name, value in family.block_config_to_layer_overrides(block).items():
            assert layer.pop(name, text.get(name, value)) == value
        unpruned = layer_view(family.language_model_config(config_view(child.config)), index)
        assert layer == {name: getattr(unpruned, name) for name in layer}, "in what unpruned layers differ"
