"""Repair: what removed units did is made up for, never at the price of held-out error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import convert_model, load_model
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import UsageError
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.spool import Spool
from anyblock.realize.realize import realize
from anyblock.realize.repair import repair
from transformers import AutoModelForCausalLM

FAMILY = get_family("llama")
MIXINS = FAMILY.pruning_mixins()


def narrowed(engine: LayerwiseModel, kind: str, size: int, layers: list[int]) -> list[Candidate]:
    mixin = MIXINS[kind]
    blocks = engine.block_configs
    return [Candidate(i, mixin.half, kind, size, mixin.resize(blocks[i], size, engine.config)) for i in layers]


@pytest.fixture(scope="module")
def redundant_dir(llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama, in which the second half of every layer's channels repeats the first."""
    model = AutoModelForCausalLM.from_pretrained(llama_dir)
    with torch.no_grad():
        for layer in model.model.layers:
            for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
                linear.weight[24:] = linear.weight[:24]
                linear.bias[24:] = linear.bias[:24]
    folder = tmp_path_factory.mktemp("redundant")
    model.save_pretrained(folder / "hf")
    return convert_model(folder / "hf", folder / "teacher")


@pytest.fixture
def batches() -> Batches:
    return Batches(torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(2)), 2)


def test_removing_repeated_channels_costs_nothing_after_repair(
    redundant_dir: Path, batches: Batches, ids: torch.Tensor, tmp_path: Path
) -> None:
    teacher = SubblockCheckpoint.open(redundant_dir)
    engine = LayerwiseModel(teacher, FAMILY)
    chosen = narrowed(engine, "ffn_intermediate", 24, [0, 1, 2])
    weights = CandidateWeights(teacher, FAMILY, engine.config, {})
    repaired, lines = repair(engine, chosen, weights, batches)
    assert [line.group for line in lines] == ["block_0_ffn", "block_1_ffn", "block_2_ffn"]
    assert all(line.plain_error > 0.1 and line.error < 1e-4 for line in lines)
    stock = load_model(redundant_dir)
    plain = load_model(realize(teacher, chosen, weights, tmp_path / "plain"))
    child = load_model(realize(teacher, chosen, weights, tmp_path / "child", repaired=repaired))
    with torch.no_grad():
        want = stock(ids).logits
        assert (child(ids).logits - want).norm() < 0.02 * want.norm()
        assert (plain(ids).logits - want).norm() > 0.2 * want.norm()


@pytest.mark.parametrize(("kind", "size"), [("ffn_intermediate", 12), ("query_groups", 1), ("kv_heads", 1)])
def test_held_out_error_never_rises_and_the_work_can_be_continued(
    teacher_dir: Path, batches: Batches, tmp_path: Path, kind: str, size: int
) -> None:
    teacher = SubblockCheckpoint.open(teacher_dir)
    engine = LayerwiseModel(teacher, FAMILY, max_resident=1)
    chosen = narrowed(engine, kind, size, [0, 2])
    units = MIXINS[kind].size(teacher.block_configs[0])
    orders = {(layer, kind): torch.arange(units - 1, -1, -1) for layer in (0, 2)}
    weights = CandidateWeights(teacher, FAMILY, engine.config, orders)
    in_memory, lines = repair(engine, chosen, weights, batches)
    found, same = repair(engine, chosen, weights, batches, partial=tmp_path / "parts", spool=Spool(tmp_path / "spool"))
    assert same == lines
    whole = dict(found)
    assert whole.keys() == in_memory.keys()
    assert all(torch.equal(whole[name], tensor) for name, tensor in in_memory.items())
    assert len(lines) == 2
    assert all(line.error <= line.plain_error for line in lines)
    assert any(line.ridge is not None for line in lines)
    (tmp_path / "parts" / "2.safetensors").unlink()
    again, same = repair(engine, chosen, weights, batches, partial=tmp_path / "parts")
    assert same == lines
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_one_batch_is_too_few_to_judge_by(teacher_dir: Path) -> None:
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), FAMILY)
    weights = CandidateWeights(engine.checkpoint, FAMILY, engine.config, {})
    with pytest.raises(UsageError, match="too few to fit"):
        repair(engine, [], weights, Batches(torch.zeros(1, 8, dtype=torch.long), 4))
