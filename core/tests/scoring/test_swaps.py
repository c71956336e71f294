"""Scores of swaps in a child: measured divergence, and predictions that are right in the limit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from anyblock import evaluate
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.library import list_candidates
from anyblock.candidates.no_op import NoOp
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.realize.realize import realize
from anyblock.scoring.estimate import rank_correlation
from anyblock.scoring.swaps import ChildScorer, SwapScores, _damped

FAMILY = get_family("llama")
SIZES = {"ffn_intermediate": lambda full: [12, 24, 36, 47], "query_groups": lambda full: [1]}


class Setup:
    def __init__(self, teacher_dir: Path, dtype: torch.dtype | None = None) -> None:
        self.teacher = SubblockCheckpoint.open(teacher_dir)
        self.engine = LayerwiseModel(self.teacher, FAMILY, max_resident=1, dtype=dtype)
        blocks = self.teacher.block_configs
        self.candidates = list_candidates(FAMILY, self.engine.config, blocks, SIZES, sources={"no_op": NoOp()})
        self.weights = CandidateWeights(self.teacher, FAMILY, self.engine.config, {})
        self.batches = Batches(torch.randint(0, 96, (6, 20), generator=torch.Generator().manual_seed(5)), 4)
        self.scorer = ChildScorer(self.engine, self.engine, self.weights, self.batches, probes=16, seed=0)

    def choice(self, *labels: str) -> list[Candidate]:
        """The teacher, but for these candidates."""
        own = {c.group: c for c in self.candidates if c.kind == "teacher"}
        own |= {c.group: c for c in self.candidates if c.key in labels}
        return list(own.values())


@pytest.fixture(scope="module")
def setup(teacher_dir: Path) -> Setup:
    return Setup(teacher_dir)


CHILD = ("block_0_ffn:ffn_intermediate=24", "block_1_attention:no_op", "block_2_attention:query_groups=1")


def test_the_divergence_is_that_of_the_written_child(setup: Setup, tmp_path: Path) -> None:
    choice = setup.choice(*CHILD)
    child = realize(setup.teacher, choice, setup.weights, tmp_path / "child")
    result = evaluate(child, data=setup.batches, teacher=setup.teacher.path)
    assert setup.scorer.divergence(choice) == pytest.approx(result.kl_per_token, rel=1e-4)
    assert setup.scorer.divergence(setup.choice()) == pytest.approx(0, abs=1e-6)


def test_what_the_child_has_changes_nothing_and_the_rest_is_ordered_right(setup: Setup) -> None:
    choice = setup.choice(*CHILD)
    predicted = setup.scorer.swaps(choice, setup.candidates).individual()
    assert set(predicted) == {candidate.key for candidate in setup.candidates}
    assert all(predicted[candidate.key] == 0 for candidate in choice)
    own = setup.scorer.divergence(choice)
    measured = {}
    for candidate in setup.candidates:
        exchanged = [candidate if c.group == candidate.group else c for c in choice]
        measured[candidate.key] = setup.scorer.divergence(exchanged) - own
    assert rank_correlation([predicted[key] for key in measured], list(measured.values())) > 0.9


def test_a_small_exchange_is_predicted_with_its_sign(setup: Setup) -> None:
    choice = setup.choice(*CHILD)
    predicted = setup.scorer.swaps(choice, setup.candidates).individual()
    own = setup.scorer.divergence(choice)
    # One channel of 48 less in a layer that is whole so far: nearly linear.
    for key in ("block_1_ffn:ffn_intermediate=47", "block_2_ffn:ffn_intermediate=47"):
        candidate = next(c for c in setup.candidates if c.key == key)
        exchanged = [candidate if c.group == candidate.group else c for c in choice]
        change = setup.scorer.divergence(exchanged) - own
        assert predicted[key] == pytest.approx(change, rel=0.35, abs=3e-4)


def test_several_exchanges_are_predicted_better_together_than_by_their_sum(setup: Setup) -> None:
    choice = setup.choice(*CHILD)
    swaps = setup.scorer.swaps(choice, setup.candidates)
    alone, own = swaps.individual(), setup.scorer.divergence(choice)
    keys = ["block_1_ffn:ffn_intermediate=36", "block_2_ffn:ffn_intermediate=36", "block_0_attention:query_groups=1"]
    exchanged = {c.group: c for c in choice} | {c.group: c for c in setup.candidates if c.key in keys}
    change = setup.scorer.divergence(list(exchanged.values())) - own
    together = swaps.joint(keys)
    assert abs(together - change) < abs(sum(alone[key] for key in keys) - change)
    # Adding one exchange after the other gives the same.
    steps = [swaps.given(keys[:count])[keys[count]] for count in range(len(keys))]
    assert sum(steps) == pytest.approx(together, rel=1e-4)
    assert swaps.given([]) == alone


def test_what_is_measured_is_what_one_exchange_changes(setup: Setup) -> None:
    choice = setup.choice(*CHILD)
    swaps = setup.scorer.swaps(choice, setup.candidates)
    own, predicted = setup.scorer.divergence(choice), swaps.individual()
    keys = ["block_1_ffn:ffn_intermediate=24", "block_0_attention:no_op", "block_2_ffn:no_op"]
    together = swaps.joint(keys)
    assert [candidate.key for candidate in swaps.unmeasured([*keys, choice[0].key])] == sorted(keys)
    new = swaps.unmeasured(keys)
    swaps.measure(new)
    for candidate in new:
        exchanged = [candidate if c.group == candidate.group else c for c in choice]
        assert swaps.individual()[candidate.key] == pytest.approx(setup.scorer.divergence(exchanged) - own, abs=1e-6)
    assert not swaps.unmeasured(keys)
    off = sum(swaps.individual()[key] - predicted[key] for key in keys)
    assert swaps.joint(keys) == pytest.approx(together + off, abs=1e-6)
    steps = [swaps.given(keys[:count])[keys[count]] for count in range(len(keys))]
    assert sum(steps) == pytest.approx(swaps.joint(keys), rel=1e-4)


def test_predictions_are_brought_to_the_level_of_measured_exchanges(setup: Setup) -> None:
    choice = setup.choice(*CHILD)
    swaps = setup.scorer.swaps(choice, setup.candidates)
    alone, sample = swaps.individual(), swaps.sample(8)
    assert {candidate.half for candidate in sample} == {"attention", "ffn"}
    assert all(candidate not in choice for candidate in sample)
    worst = {half: max(alone[c.key] for c in setup.candidates if c.half == half) for half in ("attention", "ffn")}
    assert all(alone[candidate.key] < worst[candidate.half] for candidate in sample)
    swaps.measure(sample)
    factors = swaps.factors()
    assert set(factors) == {"attention", "ffn"}
    measured = swaps.individual()
    swaps.calibrate(factors)
    # What was measured stays, the rest moves in the direction of the level.
    for candidate in setup.candidates:
        before, after = measured[candidate.key], swaps.individual()[candidate.key]
        if candidate in sample or candidate in choice:
            assert after == before
        else:
            assert (after - before) * (factors[candidate.half] - 1) >= 0


@pytest.mark.parametrize(("factor", "level"), [(2.0, 2.0), (1e6, 4.0), (-1e6, 0.5)])
def test_the_level_is_what_explains_the_measurements_within_bounds(factor: float, level: float) -> None:
    block = BlockConfig(attention=AttentionConfig(), ffn=FFNConfig(no_op=True))
    candidates = [Candidate(layer, "ffn", "no_op", 0, block) for layer in range(5)]
    products = {c.key: torch.full((3, 4), 0.1 * (c.layer + 1)) for c in candidates}
    curvature = {c.key: (0.1 * (c.layer + 1)) ** 2 / 2 for c in candidates}
    swaps = SwapScores(
        products,
        candidates,
        set(),
        lambda some: [float(products[c.key][0].mean()) + factor * curvature[c.key] for c in some],
    )
    swaps.measure(candidates[:3])
    assert swaps.factors() == {"ffn": pytest.approx(level)}
    swaps.calibrate(swaps.factors())
    for candidate in candidates[3:]:
        expected = float(products[candidate.key][0].mean()) + level * curvature[candidate.key]
        assert swaps.individual()[candidate.key] == pytest.approx(expected)


def test_one_token_whose_curvature_explodes_does_not_decide() -> None:
    products = torch.full((3, 1000), 0.02)
    products[0] = 0
    calm = float(_damped(products.clone())[1:].square().mean() / 2)
    products[1:, 7] = 500.0
    assert float(_damped(products)[1:].square().mean() / 2) == pytest.approx(calm, abs=0.013)


def test_a_child_or_an_exchange_that_is_not_finite_is_infinitely_far(brink_dir: Path) -> None:
    setup = Setup(brink_dir, dtype=torch.float16)
    first, second, third = (f"block_{layer}_attention:no_op" for layer in range(3))
    for key in (first, second, third):
        assert math.isfinite(setup.scorer.divergence(setup.choice(key)))
    assert setup.scorer.divergence(setup.choice(first, second)) == math.inf
    swaps = setup.scorer.swaps(setup.choice(first), setup.candidates)
    individual = swaps.individual()
    assert set(individual) == {candidate.key for candidate in setup.candidates}
    assert {key for key, change in individual.items() if change == math.inf} == {second, third}
    assert second not in {candidate.key for candidate in swaps.sample(20)}
    assert not swaps.unmeasured([second])
    # The other way round it shows in a later layer only: the exchange is predicted, and measured to be out of bounds.
    swaps = setup.scorer.swaps(setup.choice(second), setup.candidates)
    assert math.isfinite(swaps.individual()[first])
    swaps.measure(swaps.unmeasured([first, "block_2_ffn:ffn_intermediate=36"]))
    assert {key for key, change in swaps.individual().items() if change == math.inf} == {first, third}
    assert swaps.joint([first, "block_2_ffn:ffn_intermediate=36"]) == math.inf
    assert all(math.isfinite(factor) for factor in swaps.factors().values())
