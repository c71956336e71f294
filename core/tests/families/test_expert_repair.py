"""Least-squares repair of experts of which channels were removed, in every family that has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.importance_hook import HookContext
from anyblock.extensions import installed_plugins
from anyblock.importance.expert_moments import ExpertGramStatistic
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.realize.realize import realize
from anyblock.realize.repair import repair
from anyblock_conformance.tiny import save_tiny
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

KIND = "expert_intermediate"
FAMILIES = [name for name in installed_plugins().model_types if name != "example" and get_family(name).supports(KIND)]


def widths(family: Any, engine: LayerwiseModel) -> list[Candidate]:
    """Every sparse layer with the widest experts that are narrower than the teacher's."""
    mixin = family.pruning_mixins()[KIND]
    chosen = []
    for layer, block in enumerate(engine.block_configs):
        if mixin.applies_to(block):
            legal = mixin.legal_sizes(block, engine.config)
            size = max(size for size in legal if size < mixin.size(block))
            chosen.append(Candidate(layer, "ffn", KIND, size, mixin.resize(block, size, engine.config)))
    return chosen


def batches_of(engine: LayerwiseModel, rows: int = 48) -> Batches:
    """Random tokens, enough for every expert to be reached."""
    generator = torch.Generator().manual_seed(2)
    return Batches(torch.randint(0, engine.config.vocab_size, (rows, 32), generator=generator), 4)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_repair_of_experts_never_raises_the_held_out_error(
    model_type: str, tiny_teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    """Fused or not, transposed or not, with biases, groups and shared experts; the child loads and is finite."""
    family = get_family(model_type)
    teacher = SubblockCheckpoint.open(tiny_teacher(model_type))
    engine = LayerwiseModel(teacher, family)
    chosen, mixin = widths(family, engine), family.pruning_mixins()[KIND]
    generator = torch.Generator().manual_seed(1)
    orders = {}
    for wanted in chosen:
        block = teacher.block_configs[wanted.layer]
        shape = (block.ffn.moe.num_local_experts, mixin.size(block))
        orders[wanted.layer, KIND] = torch.rand(shape, generator=generator).argsort(dim=1)
    weights = CandidateWeights(teacher, family, engine.config, orders)
    repaired, lines = repair(engine, chosen, weights, batches_of(engine))
    assert [line.group for line in lines] == [wanted.group for wanted in chosen]
    assert all(line.error <= line.plain_error for line in lines)
    assert any(line.ridge is not None and line.error < line.plain_error for line in lines)
    changed = [name for name in repaired if ".experts." in name or "moe.output_linear." in name]
    assert changed
    assert len(changed) == len(repaired), "nothing but experts changes"
    child = load_model(realize(teacher, chosen, weights, tmp_path / "child", repaired=repaired))
    with torch.no_grad():
        assert child(torch.arange(12)[None]).logits.isfinite().all()


def doubled(model: Any) -> None:
    """Let the second half of every expert's channels repeat the first half."""
    for module in model.modules():
        if not hasattr(module, "has_gate"):
            continue
        name = "gate_up_proj" if module.has_gate else "up_proj"
        parts = [getattr(module, name), *([getattr(module, f"{name}_bias")] if module.has_bias else [])]
        for tensor in parts:
            rows = tensor.transpose(1, 2) if tensor.dim() == 3 and module.is_transposed else tensor
            interleaved = module.has_gate and module.is_transposed  # gpt-oss; its channels are pairs of rows
            halves = [rows] if interleaved or not module.has_gate else list(rows.chunk(2, dim=1))
            for half in halves:
                half[:, half.shape[1] // 2 :] = half[:, : half.shape[1] // 2].clone()


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss", "nemotron_h"])
def test_channels_that_repeat_others_cost_nothing_after_repair(model_type: str, tmp_path: Path) -> None:
    """Gated experts with tensors of their own, fused and transposed ones with biases, and ones without a gate."""
    family = get_family(model_type)
    source = save_tiny(family.conformance_config(), tmp_path / "source")
    auto = AutoModelForImageTextToText if "vl" in model_type else AutoModelForCausalLM
    model = auto.from_pretrained(source, dtype="float32")
    with torch.no_grad():
        doubled(model)
    model.save_pretrained(tmp_path / "doubled")
    teacher = SubblockCheckpoint.open(convert_model(tmp_path / "doubled", tmp_path / "teacher"))
    engine = LayerwiseModel(teacher, family)
    mixin, chosen = family.pruning_mixins()[KIND], []
    for layer, block in enumerate(engine.block_configs):
        if mixin.applies_to(block):
            half = mixin.size(block) // 2
            chosen.append(Candidate(layer, "ffn", KIND, half, mixin.resize(block, half, engine.config)))
    weights = CandidateWeights(teacher, family, engine.config, {})
    repaired, lines = repair(engine, chosen, weights, batches_of(engine, rows=96))
    assert all(line.plain_error > 0.05 and line.error < 1e-3 for line in lines), lines
    stock = load_model(teacher.path)
    plain = load_model(realize(teacher, chosen, weights, tmp_path / "plain"))
    child = load_model(realize(teacher, chosen, weights, tmp_path / "child", repaired=repaired))
    ids = torch.randint(0, engine.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        want = stock(ids, use_cache=False).logits
        near, far = ((m(ids, use_cache=False).logits - want).norm() / want.norm() for m in (child, plain))
    assert near < 0.03
    assert near < far / 4


def test_moments_are_the_sums_over_the_tokens_of_each_expert(tmp_path: Path) -> None:
    """By hand from the stock module: every other batch apart, each activation times the token's weight."""
    family = get_family("mixtral")
    model = AutoModelForCausalLM.from_pretrained(
        save_tiny(family.conformance_config(), tmp_path / "source"), dtype="float32"
    )
    moe = model.model.layers[0].mlp
    block = family.create_block_configs(model.config)[0]
    width = block.ffn.moe.expert_intermediate_dim
    statistic = ExpertGramStatistic(moe.experts, HookContext(model.config, block, 0, 4), held_out_every=2)
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    handles = [statistic.attach(), moe.experts.register_forward_hook(lambda _, args, __: seen.append(args))]
    with torch.no_grad():
        for row in range(4):
            model(torch.randint(0, 128, (1, 24), generator=torch.Generator().manual_seed(row)))
    for handle in handles:
        handle.remove()
    for expert in range(block.ffn.moe.num_local_experts):
        wanted = [torch.zeros(width, width), torch.zeros(width, width)]
        for batch, (hidden, indices, scores) in enumerate(seen):
            for token in range(len(hidden)):
                for place in range(indices.shape[1]):
                    if indices[token, place] == expert:
                        gate, up = (moe.experts.gate_up_proj[expert] @ hidden[token]).chunk(2)
                        active = torch.nn.functional.silu(gate) * up * scores[token, place]
                        wanted[batch % 2] += torch.outer(active, active).detach()
        torch.testing.assert_close(statistic.fit[expert].inputs, wanted[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(statistic.held_out[expert].inputs, wanted[1], rtol=1e-4, atol=1e-6)
