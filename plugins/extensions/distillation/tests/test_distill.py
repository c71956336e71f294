"""Distillation: the loss on held-out text falls or nothing changes, and a stopped training goes on as if it never had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from anyblock import load_model
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import NotFiniteError, UsageError
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.spool import IN_MEMORY
from anyblock.progress import SILENT
from anyblock.realize.held_out import held_out_split
from anyblock.realize.layerwise_child import ChildByLayers
from anyblock.realize.realize import realize
from anyblock.scoring.swaps import ChildScorer
from anyblock_distillation import blocks as blockwise
from anyblock_distillation import whole
from anyblock_distillation.blocks import distill_blocks
from anyblock_distillation.curve import Curve
from anyblock_distillation.training import TrainingSettings, as_stored, learning_rate_at
from anyblock_distillation.whole import distill_model
from anyblock_tests.stopping import Stop, StopAfter
from safetensors import safe_open
from safetensors.torch import save_file

FAMILY = get_family("llama")


def _split(options: dict[str, Any]) -> tuple[TrainingSettings, dict[str, Any]]:
    names = {field.name for field in fields(TrainingSettings)} & options.keys()
    return TrainingSettings(**{name: options.pop(name) for name in names}), options


class Child:
    """The tiny Llama without the attention of layer 1 and with narrower ffns in layers 0 and 1; layer 2 stays as it is."""

    def __init__(self, teacher_dir: Path, folder: Path, dtype: torch.dtype | None = None) -> None:
        self.folder = folder
        self.engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), FAMILY, dtype=dtype)
        mixin, blocks = FAMILY.pruning_mixins()["ffn_intermediate"], self.engine.block_configs
        self.chosen = [
            Candidate(i, "ffn", mixin.kind, 16, mixin.resize(blocks[i], 16, self.engine.config)) for i in (0, 1)
        ]
        self.chosen.append(Candidate(1, "attention", NO_OP, 0, blocks[1].with_attention(no_op=True)))
        self.weights = CandidateWeights(self.engine.checkpoint, FAMILY, self.engine.config, {})
        self.batches = Batches(torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(2)), 2)

    @property
    def layerwise(self) -> ChildByLayers:
        return ChildByLayers(
            self.engine, self.engine, self.weights, self.chosen, self.batches, spools=lambda _: IN_MEMORY
        )

    def _given(self, options: dict[str, Any]) -> tuple[TrainingSettings, dict[str, Any]]:
        fresh = self.folder / str(len(list(self.folder.iterdir())))
        return _split({"changed": {}, "progress": SILENT, "folder": fresh, **options})

    def blocks(self, **options: Any) -> tuple[Mapping[str, torch.Tensor], list[Any]]:
        settings, given = self._given({"epochs": 3, "learning_rate": 3e-3, "batch_size": 1, **options})
        return distill_blocks(self.layerwise, settings=settings, **given)

    def model(self, **options: Any) -> tuple[dict[str, torch.Tensor], Any]:
        default = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 2, "cosine_weight": 1.0}
        settings, given = self._given({**default, **options})
        return distill_model(self.layerwise, settings=settings, **given)

    def divergence(self, tensors: Mapping[str, torch.Tensor]) -> float:
        judge = ChildScorer(self.engine, self.engine, self.weights, held_out_split(self.batches)[1], probes=1, seed=0)
        return judge.divergence(self.chosen, changed=tensors)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture
def child(teacher_dir: Path, folder: Path) -> Child:
    return Child(teacher_dir, folder)


def test_blocks_come_nearer_to_the_teacher_and_so_does_the_child(child: Child) -> None:
    tensors, lines = child.blocks()
    assert [line.layer for line in lines] == [0, 1]  # layer 2 is the teacher's
    assert all(line.after < line.before and line.epoch > 0 for line in lines)
    assert all(name.startswith(("model.layers.0.", "model.layers.1.")) for name in tensors)
    assert child.divergence(tensors) < child.divergence({})
    for line in lines:
        check_curve(line, epochs=3, batch=1, child=child, rate=3e-3)


def check_curve(line: Any, *, epochs: int, batch: int, child: Child, rate: float) -> None:
    """A training's curve has its steps, tokens, rates, and the held-out error of every epoch."""
    curve, ids = line.curve, child.layerwise.fit_ids
    steps = epochs * len(ids.split(batch))
    assert curve["steps"] == list(range(1, steps + 1))
    assert curve["tokens"][-1] == epochs * ids.numel()
    assert max(curve["learning_rate"]) == rate > curve["learning_rate"][-1]
    assert len(curve["loss"]) == steps
    assert [step for step, _ in curve["held_out"]] == [epoch * steps // epochs for epoch in range(epochs + 1)]
    errors = [error for _, error in curve["held_out"]]
    assert errors[0] == pytest.approx(line.before, rel=1e-5)
    assert min(errors) == pytest.approx(line.after, rel=1e-5)
    assert sum(curve["loss"][-4:]) < sum(
        curve["loss"][:4]
    )  # on the same text as four steps of the first epoch, or like it


def test_a_long_training_has_few_points() -> None:
    curve = Curve()
    for step in range(1, 1001):
        curve.step(step, 1000, 8 * step, float(step), 1e-3)
    assert len(curve.steps) <= 60
    assert curve.steps[:2] == [17, 34]
    assert curve.steps[-1] == 1000
    assert curve.loss[:2] == [9.0, 26.0]  # means of 1 to 17 and of 18 to 34
    assert curve.tokens[-1] == 8000
    assert curve.to_dict().keys() == {"steps", "tokens", "loss", "learning_rate", "held_out"}


def test_the_model_comes_nearer_to_the_teacher_on_text_it_was_not_trained_on(child: Child) -> None:
    tensors, line = child.model()
    assert line.epoch > 0
    assert line.after < line.before
    # Two ways to one number, a difference of float32 logarithms of some five nats each: 1e-6 is what rounding leaves of it.
    assert line.before == pytest.approx(child.divergence({}), rel=1e-5, abs=1e-6)
    assert line.after == pytest.approx(child.divergence(tensors), rel=1e-5, abs=1e-6)
    assert not any("embed" in name or "lm_head" in name for name in tensors)
    check_curve(line, epochs=2, batch=2, child=child, rate=1e-3)


@pytest.mark.parametrize("stage", ["blocks", "model"])
def test_training_that_does_harm_is_dropped(child: Child, stage: str) -> None:
    given = {"model.layers.0.mlp.down_proj.weight": torch.zeros(32, 16)}
    tensors, lines = getattr(child, stage)(learning_rate=1e3, changed=given)
    for line in lines if isinstance(lines, list) else [lines]:
        assert line.epoch == 0
        assert line.after == line.before
    assert same(tensors, given)


@pytest.mark.parametrize("stage", ["blocks", "model"])
def test_training_that_diverges_is_dropped_and_says_so(child: Child, stage: str) -> None:
    given = {"model.layers.0.mlp.down_proj.weight": torch.zeros(32, 16)}
    # The first step takes weights to 1e30, whose products no float32 holds.
    tensors, lines = getattr(child, stage)(learning_rate=1e30, changed=given)
    for line in lines if isinstance(lines, list) else [lines]:
        assert (line.epoch, line.diverged) == (0, 1)
        assert line.after == line.before
    assert same(tensors, given)


def test_a_layer_that_diverges_does_not_take_the_others_with_it(child: Child) -> None:
    # Errors of about 1e30 can be told apart, but gradients behind this map are of that size too, and their squares are not.
    given = {"model.layers.0.mlp.down_proj.weight": torch.full((32, 16), 1e15)}
    tensors, lines = child.blocks(changed=given, epochs=1)
    assert [(line.layer, line.diverged) for line in lines] == [(0, 1), (1, None)]
    assert lines[0].epoch == 0
    name = next(iter(given))
    assert torch.equal(tensors[name], given[name])
    assert not any(key.startswith("model.layers.0.") for key in tensors.keys() - given.keys())


@pytest.mark.parametrize("stage", [blockwise, whole])
def test_epochs_before_the_one_that_diverges_count_and_a_stopped_run_knows_the_same(
    child: Child, tmp_path: Path, stage: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = child.blocks if stage is blockwise else child.model
    monkeypatch.setattr(whole, "SAVE_EVERY", 1)
    (good, good_lines), settings = train(epochs=1), {"epochs": 3}
    steps = len(child.layerwise.fit_ids.split(1 if stage is blockwise else 2))
    # The same first epoch, and a second one that cannot go well.
    monkeypatch.setattr(
        stage, "learning_rate_at", lambda step, _, rate: learning_rate_at(step, steps, rate) if step < steps else 1e30
    )
    want, lines = train(**settings)
    for line, alone in zip(
        *(found if isinstance(found, list) else [found] for found in (lines, good_lines)), strict=True
    ):
        assert line == replace(alone, diverged=2, curve=line.curve)
        assert line.curve["held_out"] == alone.curve["held_out"]  # before, and after the first epoch
    assert same(want, good)
    # Killed before the epoch that diverges, in it (a step or a layer a count), and after it.
    for after in (1, steps + 1) if stage is whole else (0, 1, 2):
        with pytest.raises(Stop):
            train(**settings, folder=tmp_path / str(after), progress=StopAfter(after))
        found, again = train(**settings, folder=tmp_path / str(after))
        assert again == lines
        assert same(found, want)


@pytest.mark.parametrize(("stage", "steps"), [("blocks", 0), ("model", 5)])
def test_a_kept_state_with_numbers_that_are_not_finite_is_not_used(
    child: Child, tmp_path: Path, stage: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "SAVE_EVERY", 2)
    train = getattr(child, stage)
    want, want_lines = train()
    with pytest.raises(Stop):
        train(folder=tmp_path, progress=StopAfter(steps))
    (kept,) = tmp_path.glob(".partial/*.safetensors")
    with safe_open(kept, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.float32)
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, kept, metadata)
    found, lines = train(folder=tmp_path)
    assert lines == want_lines
    assert same(found, want)


def test_weights_that_the_checkpoint_cannot_hold_are_not_judged() -> None:
    parameters = {"weight": torch.nn.Parameter(torch.tensor([1.0, 7e4]))}
    with pytest.raises(NotFiniteError), as_stored(parameters, {"weight": torch.float16}):
        pytest.fail("7e4 is beyond float16")
    with as_stored(parameters, {"weight": torch.bfloat16}) as values:
        assert values["weight"].tolist() == pytest.approx([1.0, 7e4], rel=1e-2)


@pytest.mark.parametrize(("stage", "steps"), [("blocks", 0), ("blocks", 1), ("model", 1), ("model", 5), ("model", 8)])
def test_a_stopped_training_goes_on_to_the_same_weights(
    child: Child, tmp_path: Path, stage: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "SAVE_EVERY", 2)
    train = getattr(child, stage)
    want, want_lines = train()
    with pytest.raises(Stop):
        train(folder=tmp_path, progress=StopAfter(steps))
    found, lines = train(folder=tmp_path, progress=SILENT)
    assert lines == want_lines
    assert same(found, want)


@pytest.mark.parametrize("stage", ["blocks", "model"])
def test_the_written_child_is_what_was_trained(child: Child, tmp_path: Path, ids: torch.Tensor, stage: str) -> None:
    tensors, _ = getattr(child, stage)(epochs=1)
    path = realize(child.engine.checkpoint, child.chosen, child.weights, tmp_path / "child", repaired=tensors)
    state = load_model(path).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())
    teacher = load_model(child.engine.checkpoint.path)
    held_out = held_out_split(child.batches)[1].ids
    with torch.no_grad():
        want, got = (model(held_out).logits.log_softmax(-1) for model in (teacher, load_model(path)))
    kl = float((want.exp() * (want - got)).sum(-1).mean())
    assert kl == pytest.approx(child.divergence(tensors), rel=1e-4, abs=1e-6)


def test_weights_are_kept_in_the_dtype_of_the_checkpoint_and_judged_in_it(teacher_dir: Path, folder: Path) -> None:
    child = Child(teacher_dir, folder, dtype=torch.bfloat16)
    tensors, lines = child.blocks(epochs=1)
    assert lines
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32}
    trained, line = child.model(epochs=1)
    assert line.after <= line.before
    assert all(tensor.dtype == torch.float32 for tensor in trained.values())


def test_too_little_text_is_refused(child: Child) -> None:
    child.batches = Batches(child.batches.ids[:2], 2)
    with pytest.raises(UsageError, match="1 calibration batch is too few"):
        child.blocks()
