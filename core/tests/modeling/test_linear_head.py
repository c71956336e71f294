"""The teacher's predictions in the size of a hidden state say what all of its logits say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.family import get_family
from anyblock.modeling import linear_head as linear_targets
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.linear_head import LinearTargets, find_linear_head
from anyblock.modeling.metrics import KlDivergence
from anyblock.modeling.spool import IN_MEMORY, Spool
from anyblock.modeling.teacher_targets import TeacherTargets
from anyblock.scoring.gradients import divergence_gradients, probe_gradients
from torch import nn


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def engine(teacher_dir: Path, request: pytest.FixtureRequest) -> LayerwiseModel:
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"))
    if request.param:
        engine.model.lm_head.bias = nn.Parameter(torch.linspace(-2, 2, 96), requires_grad=False)
    return engine


def states(engine: LayerwiseModel, ids: torch.Tensor) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """A batch, and last hidden states of a teacher and of a child."""
    batch = engine.prepare(ids)
    generator = torch.Generator().manual_seed(2)
    teacher = torch.randn(batch.hidden.shape, generator=generator)
    return batch, teacher, teacher + 0.3 * torch.randn(teacher.shape, generator=generator)


def test_divergences_and_their_gradients_are_those_of_whole_logits(
    engine: LayerwiseModel, ids: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_targets, "CHUNK_ELEMENTS", 96 * 7)
    batch, teacher, child = states(engine, ids)
    head = find_linear_head(engine)
    assert head is engine.model.lm_head
    spool = Spool(tmp_path / "spool")
    small = LinearTargets(engine, head, batch, teacher, spool=spool)
    whole = TeacherTargets(engine, batch, teacher, metric=KlDivergence(), spool=IN_MEMORY)
    kept = sum(path.stat().st_size for path in (tmp_path / "spool").iterdir())
    assert kept == ids.numel() * (4 * teacher.shape[-1] + 8)
    t, c = engine.logits(teacher, batch).double().log_softmax(-1), engine.logits(child, batch).double().log_softmax(-1)
    expected = float((t.exp() * (t - c)).sum())
    # Logits are float32: rounding of about 1e-7 a token.
    assert small.distance(child) == (pytest.approx(expected, abs=1e-5), ids.numel())
    assert whole.distance(child) == (pytest.approx(expected, abs=1e-5), ids.numel())
    assert small.distance(teacher)[0] == pytest.approx(0, abs=1e-5)
    mine, theirs = (divergence_gradients(engine, target, batch, child) for target in (small, whole))
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_rounding_over_a_large_vocabulary_does_not_add_up(teacher_dir: Path, ids: torch.Tensor) -> None:
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), get_family("llama"))
    head = nn.Linear(engine.config.hidden_size, 1 << 16).requires_grad_(False)
    head.weight.mul_(4)
    head.bias[:64] = 14.0  # a few likely tokens, in front of which many unlikely ones are lost in a float32 sum
    engine.model.lm_head = head
    batch, teacher, child = states(engine, ids)
    assert find_linear_head(engine) is head
    target = LinearTargets(engine, head, batch, teacher, spool=IN_MEMORY)
    t, c = engine.logits(teacher, batch).double().log_softmax(-1), engine.logits(child, batch).double().log_softmax(-1)
    expected = float((t.exp() * (t - c)).sum()) / ids.numel()
    assert target.distance(child)[0] / ids.numel() == pytest.approx(expected, abs=2e-6)
    assert target.distance(teacher)[0] / ids.numel() == pytest.approx(0, abs=2e-6)


def test_gradients_of_drawn_tokens_are_those_carried_back_through_the_head(
    engine: LayerwiseModel, ids: torch.Tensor
) -> None:
    batch, teacher, _ = states(engine, ids)
    found = [
        probe_gradients(engine, batch, teacher, 3, torch.Generator().manual_seed(4), head=head)
        for head in (None, find_linear_head(engine))
    ]
    assert found[0].abs().max() > 0.1
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", ["scaled", "capped"])
def test_a_head_with_more_behind_it_is_not_linear(engine: LayerwiseModel, more: str) -> None:
    head = engine.model.lm_head
    after = {"scaled": lambda logits: logits * 1.1, "capped": lambda logits: 30 * torch.tanh(logits / 30)}[more]
    forward = engine.model.forward

    def changed(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        output.logits = after(output.logits)
        return output

    engine.model.forward = changed
    assert find_linear_head(engine) is None
    engine.model.forward = forward
    assert find_linear_head(engine) is head
