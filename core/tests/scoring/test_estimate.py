"""The cheap estimate: its limit for small changes, its agreement with exact scores, and the correction."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.library import list_candidates
from anyblock.candidates.no_op import NoOp
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.scoring import estimate
from anyblock.scoring.estimate import correct, estimate_scores, rank_correlation, spread_sample
from anyblock.scoring.replace_one import CandidateScorer
from hypothesis import given, settings
from hypothesis import strategies as st

FAMILY = get_family("llama")
FINITE = st.floats(1e-6, 1e3)


class Nudged(CandidateWeights):
    """Weights that differ from the teacher's by a tiny random step: the regime in which the estimate is a limit."""

    def subblock(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(candidate.layer)
        tensors = super().subblock(candidate)
        return {name: t + 2e-2 * torch.randn(t.shape, generator=generator) for name, t in tensors.items()}


@pytest.fixture(scope="module")
def engine(teacher_dir: Path) -> LayerwiseModel:
    return LayerwiseModel(SubblockCheckpoint.open(teacher_dir), FAMILY, max_resident=2)


@pytest.fixture(scope="module")
def batches() -> Batches:
    return Batches(torch.randint(0, 96, (16, 1), generator=torch.Generator().manual_seed(0)), 8)


def both(
    engine: LayerwiseModel, weights: CandidateWeights, candidates: list[Candidate], batches: Batches, probes: int
) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [{}, {}]
    scorer = CandidateScorer(engine, candidates, weights, batches)
    for layer in range(engine.num_layers):
        found[0] |= scorer.layer(layer)
    estimate_scores(
        engine, candidates, weights, batches, probes=probes, record=lambda c, s: found[1].__setitem__(c.key, s)
    )
    return found


def test_for_small_changes_of_single_tokens_the_estimate_is_the_kl(engine: LayerwiseModel, batches: Batches) -> None:
    # Sequences of one token have no interplay between tokens, so nothing but the draws' noise is left.
    blocks = engine.checkpoint.block_configs
    same = [Candidate(layer, "ffn", "ffn_intermediate", 48, block) for layer, block in enumerate(blocks)]
    weights = Nudged(engine.checkpoint, FAMILY, engine.config, {})
    exact, estimated = both(engine, weights, same, batches, probes=3000)
    for key, value in exact.items():
        assert estimated[key] == pytest.approx(value, rel=0.1)


def test_one_token_whose_gradients_explode_does_not_decide(
    engine: LayerwiseModel, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = engine.num_layers - 1
    sizes = {"ffn_intermediate": lambda full: [8, 16, 24, 32, 40]}
    listed = list_candidates(FAMILY, engine.config, engine.checkpoint.block_configs, sizes, sources={"no_op": NoOp()})
    candidates = [candidate for candidate in listed if candidate.kind != "teacher" and candidate.layer == last]
    weights = CandidateWeights(engine.checkpoint, FAMILY, engine.config, {})

    def estimates() -> dict[str, float]:
        found: dict[str, float] = {}
        estimate_scores(engine, candidates, weights, batches, record=lambda c, s: found.__setitem__(c.key, s))
        return found

    calm = estimates()
    original = estimate.probe_gradients

    def exploding(*args: Any, **options: Any) -> torch.Tensor:
        gradients = original(*args, **options)
        gradients[:, 0] *= 1e3  # of the first sequence of each batch, which has one token
        return gradients

    monkeypatch.setattr(estimate, "probe_gradients", exploding)
    wild = estimates()
    # Two of 16 tokens count as log(1 + 1e6 x) instead of log(1 + x).
    for key, value in calm.items():
        assert value < wild[key] < value + 2 / 16 * 2 * math.log(1e3)


def test_estimates_order_real_candidates_nearly_as_exact_scores_do(engine: LayerwiseModel) -> None:
    sizes = {"ffn_intermediate": lambda full: [8, 16, 24, 32, 40], "query_groups": lambda full: [1]}
    candidates = list_candidates(
        FAMILY, engine.config, engine.checkpoint.block_configs, sizes, sources={"no_op": NoOp()}
    )
    candidates = [candidate for candidate in candidates if candidate.kind != "teacher"]
    weights = CandidateWeights(engine.checkpoint, FAMILY, engine.config, {})
    text = Batches(torch.randint(0, 96, (6, 20), generator=torch.Generator().manual_seed(5)), 4)
    exact, estimated = both(engine, weights, candidates, text, probes=8)
    assert list(exact)
    assert set(exact) == set(estimated)
    assert rank_correlation(list(exact.values()), [estimated[key] for key in exact]) > 0.9


def test_the_same_seed_gives_the_same_estimates_also_when_continued(engine: LayerwiseModel, batches: Batches) -> None:
    candidates = [
        Candidate(layer, "ffn", "no_op", 0, block.with_ffn(no_op=True))
        for layer, block in enumerate(engine.checkpoint.block_configs)
    ]
    weights = CandidateWeights(engine.checkpoint, FAMILY, engine.config, {})
    whole: dict[str, float] = {}
    estimate_scores(engine, candidates, weights, batches, record=lambda c, s: whole.__setitem__(c.key, s))
    rest: dict[str, float] = {}
    done = {candidates[2].key}
    estimate_scores(engine, candidates, weights, batches, done=done, record=lambda c, s: rest.__setitem__(c.key, s))
    assert rest == {key: value for key, value in whole.items() if key not in done}


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=3, max_size=20), st.data())
def test_the_correction_keeps_exact_scores_and_the_order(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    estimates = {str(index): pair[0] for index, pair in enumerate(pairs)}
    count = data.draw(st.integers(2, len(pairs)))
    exact = {str(index): pairs[index][1] for index in range(count)}
    corrected = correct(estimates, exact)
    assert {key: corrected[key] for key in exact} == exact
    free = sorted((estimates[key], corrected[key]) for key in estimates if key not in exact)
    # What was estimated apart stays apart: candidates that count the same cannot be told from one another.
    assert all(math.log(b[1] / a[1]) >= 0.49 * math.log(b[0] / a[0]) - 1e-9 for a, b in itertools.pairwise(free))
    assert all(value > 0 for value in corrected.values())


def test_a_perfect_sample_leaves_a_proportional_scale() -> None:
    estimates = {str(index): float(index) for index in range(1, 30)}
    corrected = correct(estimates, {key: 2 * estimates[key] for key in ("3", "10", "20")})
    assert corrected["25"] == pytest.approx(50)
    assert corrected["1"] == pytest.approx(2)


def test_the_sample_has_both_ends(teacher_dir: Path) -> None:
    block = SubblockCheckpoint.open(teacher_dir).block_configs[0]
    candidates = [Candidate(layer, "ffn", "no_op", 0, block) for layer in range(20)]
    estimates = {candidate.key: float(candidate.layer) for candidate in candidates}
    chosen = spread_sample(candidates, estimates, 5)
    assert [candidate.layer for candidate in chosen] == [0, 5, 10, 14, 19]
    assert len(spread_sample(candidates, estimates, 50)) == 20


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([1.0, 2.0, 3.0], [1.0, 5.0, 9.0], 1.0),
        ([1.0, 2.0, 3.0], [9.0, 5.0, 1.0], -1.0),
        ([1.0, 1.0, 1.0], [3.0, 2.0, 1.0], 0.0),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], 1.0),
        ([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], 3**0.5 / 2),  # mean ranks 1.5, 1.5, 3
        ([1.0, 1.0, 2.0], [2.0, 1.0, 3.0], 3**0.5 / 2),  # the order of equal values does not count
        ([1.0], [2.0], 1.0),
        ([], [], 1.0),
    ],
)
def test_equal_values_share_their_mean_rank(first: list[float], second: list[float], wanted: float) -> None:
    assert rank_correlation(first, second) == pytest.approx(wanted)


def test_every_kind_is_brought_to_the_scale_of_its_own_exact_scores() -> None:
    kinds = {f"{kind}{index}": kind for kind in ("attention", "ffn") for index in range(1, 11)}
    estimates = {key: float(key.removeprefix(kind)) for key, kind in kinds.items()}
    true = {key: estimates[key] * (3 if kind == "attention" else 2) for key, kind in kinds.items()}
    sample = {key: true[key] for key in ("attention2", "attention9", "ffn1", "ffn5", "ffn10")}
    corrected = correct(estimates, sample, kinds)
    assert all(corrected[key] == pytest.approx(value, rel=1e-3) for key, value in true.items())
    together = correct(estimates, sample)
    assert sum(abs(corrected[key] / true[key] - 1) for key in true) < sum(
        abs(together[key] / true[key] - 1) for key in true
    )
    # One exact score says nothing about a kind: it takes the factor of all.
    assert correct(estimates, {"attention3": 9.0, "ffn2": 4.0, "ffn8": 16.0}, kinds)["attention3"] == 9.0


def test_kinds_are_compared_at_the_same_estimate() -> None:
    # Large changes are underestimated whatever their kind, and attentions by half as much again; most attentions are large.
    kinds = {f"{kind}{index}": kind for kind in ("attention", "ffn") for index in range(1, 41)}
    places = {key: int(key.removeprefix(kind)) for key, kind in kinds.items()}
    estimates = {key: 1.1 ** (place + (30 if kinds[key] == "attention" else 0)) for key, place in places.items()}
    true = {key: (value * (1.5 if kinds[key] == "attention" else 1)) ** 1.3 for key, value in estimates.items()}
    sample = {key: true[key] for key, place in places.items() if place in (1, 14, 27, 40)}
    corrected = correct(estimates, sample, kinds)
    assert all(corrected[key] == pytest.approx(value, rel=1e-3) for key, value in true.items())
    assert rank_correlation(list(corrected.values()), list(true.values())) > 0.999


def test_the_sample_has_some_of_each_half(teacher_dir: Path) -> None:
    block = SubblockCheckpoint.open(teacher_dir).block_configs[0]
    candidates = [
        Candidate(layer, "ffn", "ffn_intermediate", size, block) for layer in range(30) for size in range(1, 8)
    ]
    candidates += [Candidate(layer, "attention", "no_op", 0, block) for layer in range(30)]
    estimates = {c.key: float(c.layer + 100 * c.size) for c in candidates}
    chosen = spread_sample(candidates, estimates, 16)
    attention = [c.layer for c in chosen if c.half == "attention"]
    assert attention[0] == 0
    assert attention[-1] == 29
    assert len(attention) == 4
    assert len(chosen) <= 19
    assert len({c.key for c in chosen}) == len(chosen)
