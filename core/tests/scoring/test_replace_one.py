"""A score equals what the whole child, written and run from start to end, really does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate, child_blocks
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.library import list_candidates
from anyblock.candidates.no_op import NoOp
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import ExecutionError, UnsupportedModelError, UsageError
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.load import load_model
from anyblock.modeling.metrics import METRICS
from anyblock.modeling.spool import Spool
from anyblock.realize.realize import realize
from anyblock.scoring.replace_one import CandidateScorer
from torch.nn import functional

FAMILY = get_family("llama")


class Setup:
    """The teacher, its candidates in a shuffled order of units, and some tokens."""

    def __init__(self, teacher_dir: Path) -> None:
        self.teacher = SubblockCheckpoint.open(teacher_dir)
        self.engine = LayerwiseModel(self.teacher, FAMILY, max_resident=2)
        sizes = {
            "ffn_intermediate": lambda full: [full // 3, full // 2],
            "query_groups": lambda full: [1],
            "kv_heads": lambda full: [1],
        }
        self.candidates = list_candidates(
            FAMILY, self.engine.config, self.teacher.block_configs, sizes, sources={"no_op": NoOp()}
        )
        generator = torch.Generator().manual_seed(3)
        mixins = FAMILY.pruning_mixins()
        orders = {
            (layer, kind): torch.randperm(mixins[kind].size(block), generator=generator)
            for layer, block in enumerate(self.teacher.block_configs)
            for kind in sizes
        }
        self.weights = CandidateWeights(self.teacher, FAMILY, self.engine.config, orders)
        self.batches = Batches(torch.randint(0, 96, (5, 16), generator=generator), 2)

    @property
    def to_score(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates if candidate.kind != "teacher"]

    def score(self, metric: str, *, layers: Iterable[int] | None = None, **options: object) -> dict[str, float]:
        scorer = CandidateScorer(
            self.engine, self.to_score, self.weights, self.batches, metric=METRICS[metric](), **options
        )
        layers = range(self.engine.num_layers) if layers is None else layers
        return {key: score for layer in layers for key, score in scorer.layer(layer).items()}


@pytest.fixture(scope="module")
def setup(teacher_dir: Path) -> Setup:
    return Setup(teacher_dir)


def brute_force(metric: str, teacher: torch.nn.Module, child: torch.nn.Module, ids: torch.Tensor) -> float:
    with torch.no_grad():
        t, c = teacher(ids).logits.double(), child(ids).logits.double()
        if metric == "kl":
            p, q = t.log_softmax(-1), c.log_softmax(-1)
            return float((p.exp() * (p - q)).sum(-1).mean())
        if metric == "lm_loss":
            return float(functional.cross_entropy(c[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))
        t, c = teacher.model(ids).last_hidden_state, child.model(ids).last_hidden_state
        return float((1 - functional.cosine_similarity(t, c, dim=-1)).mean())


@pytest.mark.parametrize("metric", ["kl", "cosine", "lm_loss"])
def test_scores_equal_those_of_realised_children(setup: Setup, tmp_path: Path, metric: str) -> None:
    scores = setup.score(metric)
    assert set(scores) == {candidate.key for candidate in setup.to_score}
    teacher = load_model(setup.teacher.path)
    for candidate in setup.to_score:
        child_dir = realize(setup.teacher, [candidate], setup.weights, tmp_path / candidate.key.replace(":", "_"))
        child = load_model(child_dir)
        assert scores[candidate.key] == pytest.approx(
            brute_force(metric, teacher, child, setup.batches.ids), rel=1e-4, abs=1e-6
        )


def test_block_output_error_equals_its_definition(setup: Setup, tmp_path: Path) -> None:
    scores = setup.score("mse")
    teacher = load_model(setup.teacher.path)
    candidate = next(c for c in setup.to_score if c.layer == 1 and c.kind == "ffn_intermediate")
    child = load_model(realize(setup.teacher, [candidate], setup.weights, tmp_path / "child"))
    captured: dict[torch.nn.Module, torch.Tensor] = {}
    for model in (teacher, child):
        model.model.layers[1].register_forward_hook(lambda m, _, out, model=model: captured.__setitem__(model, out))
        with torch.no_grad():
            model(setup.batches.ids)
    difference = (captured[child] - captured[teacher]).double().square().sum()
    expected = float(difference / captured[teacher].double().square().sum())
    assert scores[candidate.key] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", ["kl", "cosine", "mse"])
def test_the_teachers_own_shape_scores_zero(setup: Setup, metric: str) -> None:
    """Also where the reference has a similarity, of which its teacher gets the worst value."""
    same = [candidate for candidate in setup.candidates if candidate.kind == "teacher" and candidate.layer == 2]
    scorer = CandidateScorer(setup.engine, same, setup.weights, setup.batches, metric=METRICS[metric]())
    assert list(scorer.layer(2).values()) == [pytest.approx(0, abs=1e-6)] * 2


def test_a_layer_alone_has_the_same_scores_and_the_spool_changes_nothing(setup: Setup, tmp_path: Path) -> None:
    whole = setup.score("kl")
    spool = Spool(tmp_path / "spool")
    last = setup.score("kl", layers=[1], spool=spool)
    assert last
    assert last == {key: score for key, score in whole.items() if key in last}
    assert next(spool._numbers) > 0, "nothing went to a file"
    assert not any((tmp_path / "spool").iterdir()), "what is no longer used is removed"


def test_a_number_that_is_not_finite_names_the_candidate(setup: Setup) -> None:
    class Broken(CandidateWeights):
        def subblock(self, candidate: Candidate) -> dict[str, torch.Tensor]:
            return {name: tensor * float("nan") for name, tensor in super().subblock(candidate).items()}

    broken = Broken(setup.teacher, FAMILY, setup.engine.config, {})
    candidate = next(c for c in setup.to_score if c.kind == "ffn_intermediate")
    with pytest.raises(ExecutionError, match=r"block_0_ffn:ffn_intermediate=16: the output of layer 0 .* NaN"):
        CandidateScorer(setup.engine, [candidate], broken, setup.batches).layer(0)


def test_an_unknown_kind_and_an_impossible_size_are_refused(setup: Setup) -> None:
    config, blocks = setup.engine.config, setup.teacher.block_configs
    with pytest.raises(UnsupportedModelError, match="no pruning kind 'experts_removal'"):
        list_candidates(FAMILY, config, blocks, {"experts_removal": lambda full: [1]})
    with pytest.raises(UsageError, match="64"):
        list_candidates(FAMILY, config, blocks, {"ffn_intermediate": lambda full: [64]})


def test_child_blocks_take_each_half_from_its_own_candidate(setup: Setup) -> None:
    chosen = [
        next(c for c in setup.to_score if c.layer == 1 and c.kind == "no_op" and c.half == "attention"),
        next(c for c in setup.to_score if c.layer == 1 and c.label == "ffn_intermediate=16"),
    ]
    blocks = child_blocks(setup.teacher.block_configs, chosen)
    assert blocks[1].attention.no_op
    assert blocks[1].ffn.intermediate_size == 16
    assert [blocks[0], blocks[2]] == [setup.teacher.block_configs[0], setup.teacher.block_configs[2]]
