"""What holds for every family when one linear map replaces a half: which tensors stay, what it computes, and its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import export_child, get_family, load_model
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.linear import Linear
from anyblock.candidates.sources import PlannedTeacher
from anyblock.candidates.stand_ins import stand_ins
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import HALVES
from anyblock.costs.cost_model import Scenario, subblock_costs
from anyblock.errors import UnsupportedModelError
from anyblock.extensions import installed_plugins
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

FAMILIES = [name for name in installed_plugins().model_types if name != "example"]
SEVERAL = ("falcon_h1", "gemma4", "gemma4_text", "granitemoehybrid")
"""Families with a half of several modules side by side, in whose place one map cannot stand."""
OWN_LAYERS = ("gemma4_unified", "gemma4_unified_text")
"""Families whose unpruned layers differ by their types, within which transformers wants them alike."""
IDS = torch.arange(1, 13).reshape(1, 12)


def applied(weight: torch.Tensor, returns: int) -> Any:
    """The map as it is defined, in the form in which the teacher's module returns."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        mapped = kwargs.get("hidden_states", args[0] if args else None) @ weight.T
        return mapped if returns == 1 else (mapped, *[None] * (returns - 1))

    return forward


@pytest.mark.parametrize("model_type", SEVERAL)
def test_a_half_of_several_modules_is_refused(model_type: str, tiny_teacher: Callable[[str], Path]) -> None:
    family = get_family(model_type)
    teacher = SubblockCheckpoint.open(tiny_teacher(model_type))
    shapes = {group: teacher.meta(group) for group in teacher.groups}
    with pytest.raises(UnsupportedModelError, match="cannot have a linear map in place of this half"):
        [stand_ins(family, load_hf_config(teacher.path), teacher.block_configs, shapes, half) for half in HALVES]


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name not in SEVERAL])
def test_the_child_is_the_teacher_with_the_map_in_the_modules_place(
    model_type: str, tiny_teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of every half; costs are counted from the tensors that the child has; decoding with a cache equals decoding without."""
    family = get_family(model_type)
    config = family.conformance_config()
    teacher = SubblockCheckpoint.open(tiny_teacher(model_type))
    blocks, text = teacher.block_configs, family.language_model_config(config)
    shapes = {group: teacher.meta(group) for group in teacher.groups}
    found = {half: stand_ins(family, load_hf_config(teacher.path), blocks, shapes, half) for half in HALVES}
    sites = {
        (layer, half): found[half][layer] for layer in range(len(blocks)) for half in HALVES if layer in found[half]
    }
    assert set(sites) == {(i, half) for i, block in enumerate(blocks) for half in HALVES if not block.half(half).no_op}
    generator = torch.Generator().manual_seed(0)
    width = int(text.hidden_size)
    maps = {place: torch.randn(width, width, generator=generator) / width**0.5 for place in sites}
    linear = Linear()
    linear.stand_in = lambda layer, half: sites[layer, half]
    sources = {"linear": linear}
    planned = CandidateWeights(PlannedTeacher(blocks), family, text, {}, sources=sources)
    linear.learn(maps, None)
    weights = CandidateWeights(teacher, family, text, {}, sources=sources)
    first, last = min(sites), max(sites)
    chosen = []
    for layer, half in (first, last):
        chosen.append(Candidate(layer, half, "linear", 0, blocks[layer].with_half(half, replace_with_linear=True)))
    child = SubblockCheckpoint.open(realize(teacher, chosen, weights, tmp_path / "child"))
    stock, model = load_model(teacher.path), load_model(child.path)
    for place in (first, last):
        path = f"{family.layer_block_name(place[0])}.{sites[place].module}"
        stock.get_submodule(path).forward = applied(maps[place], model.get_submodule(path).returns)
    with torch.no_grad():
        expected = stock(IDS, use_cache=False).logits
        torch.testing.assert_close(model(IDS, use_cache=False).logits, expected, rtol=1e-4, atol=1e-4)
        cached = model(IDS[:, :8], use_cache=True)
        rest = model(IDS[:, 8:], past_key_values=cached.past_key_values, use_cache=True).logits
        torch.testing.assert_close(rest, expected[:, 8:], rtol=1e-3, atol=1e-3)
    for candidate in chosen:
        group = candidate.group
        listed = planned.shapes(candidate, shapes[group])
        written = child.load(group)
        assert {n: (t.shape, t.dtype) for n, t in listed.items()} == {n: (t.shape, t.dtype) for n, t in written.items()}
        costs = subblock_costs(
            family, config, candidate.block_config, candidate.layer, candidate.half, listed, Scenario()
        )
        assert costs["params"] == costs["active_params"] == sum(tensor.numel() for tensor in written.values())
        assert costs["kv_memory"] == costs["kv_heads"] == costs["attention_layers"] == costs["ffn_layers"] == 0
    if model_type in OWN_LAYERS:
        with pytest.raises(UnsupportedModelError, match="layers of one type be alike"):
            export_child(child.path, tmp_path / "out", "transformers")
        return
    out = export_child(child.path, tmp_path / "out", "transformers")
    auto = AutoModelForImageTextToText if "text_config" in child.config else AutoModelForCausalLM
    remote = auto.from_pretrained(out, trust_remote_code=True, dtype="auto").eval()
    assert type(remote).__module__.endswith("modeling_anyblock")
    with torch.no_grad():
        found = model(IDS, use_cache=False).logits
        assert torch.equal(remote(IDS, use_cache=False).logits, found)
        assert torch.equal(load_model(out)(IDS, use_cache=False).logits, found)
    for name in ("anymodel", "nemotron-nas", "gguf"):
        with pytest.raises(UnsupportedModelError, match="linear map in place of its"):
            export_child(child.path, tmp_path / name, name)
