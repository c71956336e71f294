"""From end to end on a really trained model: choosing by importance and by search beats choosing badly, by far."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import compress, convert_model, evaluate, load_model
from anyblock.calibration.batches import Batches
from anyblock.calibration.packing import pack_text
from anyblock.calibration.sweep import HookPlan, ScoreKey, sweep_importance
from anyblock.calibration.text import read_text
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import RunConfig
from anyblock.family import get_family
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.realize.realize import realize

MODEL = Path(__file__).parents[1] / "assets" / "tiny-llama"
TEXT = Path(__file__).parents[3] / "demo" / "text"
FAMILY = get_family("llama")
KIND = "ffn_intermediate"


class Prepared:
    """The trained teacher, its importance scores under both channel hooks, and text that it was not calibrated on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = SubblockCheckpoint.open(convert_model(MODEL, folder / "teacher"))
        self.engine = LayerwiseModel(self.teacher, FAMILY, dtype=torch.float32)
        tokenizer = load_tokenizer(MODEL)
        self.mixin = FAMILY.pruning_mixins()[KIND]
        self.calibration = Batches(pack_text(read_text(TEXT / "calibration.txt"), tokenizer, 128, max_tokens=8192), 8)
        self.evaluation = Batches(pack_text(read_text(TEXT / "evaluation.txt"), tokenizer, 128, max_tokens=4096), 8)
        hooks = {name: FAMILY.importance_hooks()[name] for name in HOOKS}
        plans = [HookPlan(KIND, name, hook, self.mixin) for name, hook in hooks.items()]
        self.scores = sweep_importance(self.engine, plans, self.calibration)

    def divergence(self, name: str, orders: dict[tuple[int, str], torch.Tensor]) -> float:
        """KL of the child that keeps half of every layer's channels in these orders."""
        weights = CandidateWeights(self.teacher, FAMILY, self.engine.config, orders)
        chosen = []
        for layer, block in enumerate(self.teacher.block_configs):
            size = self.mixin.size(block) // 2
            chosen.append(Candidate(layer, "ffn", KIND, size, self.mixin.resize(block, size, self.engine.config)))
        child = realize(self.teacher, chosen, weights, self.folder / name)
        result = evaluate(child, data=self.evaluation, teacher=self.teacher.path, dtype=torch.float32)
        assert result.kl_per_token is not None
        return result.kl_per_token


HOOKS = ("IndependentChannelContributionHook", "IterativeChannelContributionHook")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("hook", HOOKS)
def test_pruning_by_scores_beats_random_and_reversed_selection(prepared: Prepared, hook: str) -> None:
    layers = range(len(prepared.teacher.block_configs))
    scored = {(layer, KIND): (-prepared.scores[ScoreKey(layer, KIND, hook)]).argsort(stable=True) for layer in layers}
    generator = torch.Generator().manual_seed(0)
    shuffled = {key: order[torch.randperm(len(order), generator=generator)] for key, order in scored.items()}
    reverse = {key: order.flip(0) for key, order in scored.items()}
    by_score, at_random, reversed_order = (
        prepared.divergence(f"{hook}-{name}", orders)
        for name, orders in (("scored", scored), ("random", shuffled), ("reversed", reverse))
    )
    assert by_score < 0.6 * at_random
    assert at_random < reversed_order
    assert by_score < 0.4 * reversed_order


def test_a_searched_child_beats_one_of_uniform_width(prepared: Prepared, tmp_path: Path) -> None:
    settings = {
        "model": str(prepared.teacher.path),
        "output": str(tmp_path / "child"),
        "data": {
            "path": str(TEXT / "calibration.txt"),
            "evaluation": str(TEXT / "evaluation.txt"),
            "block_size": 128,
            "batch_size": 8,
            "calibration_tokens": 8192,
            "scoring_tokens": 2048,
            "evaluation_tokens": 4096,
        },
        "search": {"budget": {"params": "0.75x"}},
        "device": "cpu",
        "dtype": "float32",
    }
    result = compress(RunConfig.model_validate(settings))
    assert result.evaluation is not None
    assert result.evaluation.kl_per_token is not None
    child = load_model(tmp_path / "child")
    assert sum(p.numel() for p in child.parameters()) <= 0.75 * result.summary.teacher_costs["params"]
    # Half of every ffn is a smaller cut than the budget asks for, and still hurts more.
    orders = {
        (layer, KIND): (-prepared.scores[ScoreKey(layer, KIND, "IterativeChannelContributionHook")]).argsort(
            stable=True
        )
        for layer in range(len(prepared.teacher.block_configs))
    }
    uniform = prepared.divergence("uniform", orders)
    assert result.evaluation.kl_per_token < uniform
    text = child.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert text.shape == (1, 8)
