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


@pytest.mark.parametrize("to_stream", [False, True])
def test_removing_repeated_channels_costs_nothing_after_repair(
    redundant_dir: Path, batches: Batches, ids: torch.Tensor, tmp_path: Path, to_stream: bool
) -> None:
    teacher = SubblockCheckpoint.open(redundant_dir)
    engine = LayerwiseModel(teacher, FAMILY)
    chosen = narrowed(engine, "ffn_intermediate", 24, [0, 1, 2])
    weights = CandidateWeights(teacher, FAMILY, engine.config, {})
    repaired, lines = repair(engine, chosen, weights, batches, to_stream=to_stream)
    assert [line.group for line in lines] == ["block_0_ffn", "block_1_ffn", "block_2_ffn"]
    assert all(line.error < 1e-3 * line.plain_error for line in lines)
    stock = load_model(redundant_dir)
    plain = load_model(realize(teacher, chosen, weights, tmp_path / "plain"))
    child = load_model(realize(teacher, chosen, weights, tmp_path / "child", repaired=repaired))
    with torch.no_grad():
        want = stock(ids).logits
        assert (child(ids).logits - want).norm() < 0.02 * want.norm()
        assert (plain(ids).logits - want).norm() > 0.2 * want.norm()


@pytest.mark.parametrize("to_stream", [False, True])
@pytest.mark.parametrize(("kind", "size"), [("ffn_intermediate", 12), ("query_groups", 1), ("kv_heads", 1)])
def test_held_out_error_never_rises_and_the_work_can_be_continued(
    teacher_dir: Path, batches: Batches, tmp_path: Path, kind: str, size: int, to_stream: bool
) -> None:
    teacher = SubblockCheckpoint.open(teacher_dir)
    engine = LayerwiseModel(teacher, FAMILY, max_resident=1)
    chosen = narrowed(engine, kind, size, [0, 2])
    units = MIXINS[kind].size(teacher.block_configs[0])
    orders = {(layer, kind): torch.arange(units - 1, -1, -1) for layer in (0, 2)}
    weights = CandidateWeights(teacher, FAMILY, engine.config, orders)
    how = {"to_stream": to_stream}
    in_memory, lines = repair(engine, chosen, weights, batches, **how)
    found, same = repair(
        engine, chosen, weights, batches, partial=tmp_path / "parts", spool=Spool(tmp_path / "spool"), **how
    )
    assert same == lines
    whole = dict(found)
    assert whole.keys() == in_memory.keys()
    assert all(torch.equal(whole[name], tensor) for name, tensor in in_memory.items())
    assert len(lines) == 2
    assert all(line.error <= line.plain_error for line in lines)
    assert any(line.ridge is not None for line in lines)
    (tmp_path / "parts" / "2.safetensors").unlink()
    again, same = repair(engine, chosen, weights, batches, partial=tmp_path / "parts", **how)
    assert same == lines
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_repaired_map_that_the_checkpoint_cannot_hold_is_not_taken(
    llama_dir: Path, batches: Batches, tmp_path: Path, dtype: torch.dtype
) -> None:
    """The kept channels of layer 1 are copies of removed ones, ten thousand times smaller."""
    model = AutoModelForCausalLM.from_pretrained(llama_dir)
    with torch.no_grad():
        mlp = model.model.layers[1].mlp
        for linear, scale in ((mlp.gate_proj, 1.0), (mlp.up_proj, 1e-4)):
            linear.weight[:24] = linear.weight[24:] * scale
            linear.bias[:24] = linear.bias[24:] * scale
        mlp.down_proj.weight.copy_(mlp.down_proj.weight.sign() * 8)  # 8e4 is what it would take
    model.to(dtype).save_pretrained(tmp_path / "hf")
    teacher = SubblockCheckpoint.open(convert_model(tmp_path / "hf", tmp_path / "teacher"))
    engine = LayerwiseModel(teacher, FAMILY, dtype=torch.float32)
    weights = CandidateWeights(teacher, FAMILY, engine.config, {})
    repaired, (line,) = repair(engine, narrowed(engine, "ffn_intermediate", 24, [1]), weights, batches)
    if dtype == torch.float16:
        assert not repaired
        assert line.ridge is None
        assert line.error == line.plain_error
    else:
        assert float(repaired["model.layers.1.mlp.down_proj.weight"].abs().max()) > torch.finfo(torch.float16).max
        assert line.error < line.plain_error


def test_one_batch_is_too_few_to_judge_by(teacher_dir: Path) -> None:
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), FAMILY)
    weights = CandidateWeights(engine.checkpoint, FAMILY, engine.config, {})
    with pytest.raises(UsageError, match="too few to fit"):
        repair(engine, [], weights, Batches(torch.zeros(1, 8, dtype=torch.long), 4))


def cut_everywhere(engine: LayerwiseModel) -> list[Candidate]:
    layers = list(range(engine.num_layers))
    return [*narrowed(engine, "query_groups", 1, layers), *narrowed(engine, "ffn_intermediate", 12, layers)]


def test_the_stream_after_every_half_is_fitted_to_the_teachers(
    teacher_dir: Path, batches: Batches, tmp_path: Path
) -> None:
    """By hand: what the last map has to add, fitted in one go to inputs and streams that hooks saw in whole models."""
    teacher = SubblockCheckpoint.open(teacher_dir)
    engine = LayerwiseModel(teacher, FAMILY)
    chosen, weights = cut_everywhere(engine), CandidateWeights(teacher, FAMILY, engine.config, {})
    repaired, lines = repair(engine, chosen, weights, batches, to_stream=True)
    name, last = "model.layers.2.mlp.down_proj.weight", lines[-1]
    before = {key: tensor for key, tensor in repaired.items() if key != name}
    child = load_model(realize(teacher, chosen, weights, tmp_path / "child", repaired=before))
    stock = load_model(teacher_dir)
    seen: dict[str, torch.Tensor] = {}
    stock.model.layers[2].register_forward_hook(lambda *a: seen.update(wanted=a[2]))
    child.model.layers[2].register_forward_hook(lambda *a: seen.update(found=a[2]))
    child.model.layers[2].mlp.down_proj.register_forward_hook(lambda *a: seen.update(x=a[1][0]))
    rows = []
    with torch.no_grad():
        for position, ids in enumerate(batches):
            stock(ids)
            child(ids)
            if position % 4 != 3:
                wanted, found, x = (seen[key].flatten(0, 1).double() for key in ("wanted", "found", "x"))
                size = wanted.norm(dim=1, keepdim=True)
                rows.append((x / size, (wanted - found) / size))
    x, target = (torch.cat(part) for part in zip(*rows, strict=True))
    gram = x.T @ x
    change = torch.linalg.solve(gram + last.ridge * gram.diagonal().mean() * torch.eye(len(gram)), x.T @ target).T
    expected = child.model.layers[2].mlp.down_proj.weight.double() + change
    assert (repaired[name] - expected).norm() < 1e-3 * change.norm()


@torch.no_grad()
def test_the_child_comes_nearer_than_with_halves_fitted_alone(
    teacher_dir: Path, batches: Batches, tmp_path: Path
) -> None:
    teacher = SubblockCheckpoint.open(teacher_dir)
    engine = LayerwiseModel(teacher, FAMILY)
    chosen, weights = cut_everywhere(engine), CandidateWeights(teacher, FAMILY, engine.config, {})
    wanted = load_model(teacher_dir).model(batches.ids).last_hidden_state
    off = {}
    for to_stream in (False, True):
        repaired, _ = repair(engine, chosen, weights, batches, to_stream=to_stream)
        child = load_model(realize(teacher, chosen, weights, tmp_path / str(to_stream), repaired=repaired))
        off[to_stream] = float((child.model(batches.ids).last_hidden_state - wanted).norm())
    assert off[True] < off[False]


def test_where_a_norm_follows_the_map_the_half_is_fitted_alone(
    teacher_dir: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that scales what its ffn gives: the map's result is not added to the stream as it is."""
    teacher = SubblockCheckpoint.open(teacher_dir)
    engine = LayerwiseModel(teacher, FAMILY)
    chosen, weights = (
        narrowed(engine, "ffn_intermediate", 12, [1]),
        CandidateWeights(teacher, FAMILY, engine.config, {}),
    )
    mlp = type(engine.use(1).mlp)
    plain = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda self, x: 0.5 * plain(self, x))
    alone, line = repair(engine, chosen, weights, batches)
    stream, same = repair(engine, chosen, weights, batches, to_stream=True)
    assert same == line
    assert all(torch.equal(stream[name], tensor) for name, tensor in alone.items())
