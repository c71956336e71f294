"""What candidates share is computed once, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from anyblock.modeling.spool import IN_MEMORY
from anyblock.modeling.variants import LayerVariants
from anyblock.scoring.layer_outputs import LayerOutputs

FAMILY = get_family("llama")
SIZES = {
    "ffn_intermediate": lambda full: [full // 6, full // 3, full // 2, full - 1],
    "query_groups": lambda full: list(range(1, full)),
    "kv_heads": lambda full: [1],
}


class Setup:
    """The trained Llama of six layers and three key-value heads, its units in any order, and two batches."""

    def __init__(self, path: Path, weights: type[CandidateWeights] = CandidateWeights) -> None:
        self.engine = LayerwiseModel(SubblockCheckpoint.open(path), FAMILY, dtype=torch.float32, max_resident=2)
        blocks = self.engine.block_configs
        listed = list_candidates(FAMILY, self.engine.config, blocks, SIZES, sources={"no_op": NoOp()})
        self.candidates = [candidate for candidate in listed if candidate.kind != "teacher"]
        generator = torch.Generator().manual_seed(1)
        orders = {
            (layer, kind): torch.randperm(FAMILY.pruning_mixins()[kind].size(block), generator=generator)
            for layer, block in enumerate(blocks)
            for kind in SIZES
        }
        self.weights = weights(self.engine.checkpoint, FAMILY, self.engine.config, orders)
        batches = Batches(torch.randint(0, 96, (3, 12), generator=generator), 2)
        self.batches, first = self.engine.prepare_all(batches, IN_MEMORY)
        self.inputs = [first]
        for index in range(self.engine.num_layers):
            pairs = zip(self.inputs[-1], self.batches, strict=True)
            self.inputs.append(IN_MEMORY.collect(self.engine.run(index, hidden, batch) for hidden, batch in pairs))

    def run(self, index: int, wanted: set[str] | None = None) -> dict[tuple[str, int], torch.Tensor]:
        outputs = LayerOutputs(self.engine, self.candidates, self.weights, self.batches, IN_MEMORY)
        keys = {candidate.key for candidate in self.candidates} if wanted is None else wanted
        found = [((c.key, position), output) for c, position, output in outputs.run(index, self.inputs[index], keys)]
        assert len(dict(found)) == len(found)
        return dict(found)

    def one_by_one(self, index: int) -> dict[tuple[str, int], torch.Tensor]:
        mine = [candidate for candidate in self.candidates if candidate.layer == index]
        wanted = [[c.block_config for c in mine] if i == index else [] for i in range(self.engine.num_layers)]
        variants = LayerVariants(self.engine, wanted)
        found = {}
        for candidate in mine:
            with variants.layer(index, candidate.block_config, self.weights.block(candidate)) as layer:
                for position, batch in enumerate(self.batches):
                    hidden = self.inputs[index][position]
                    found[candidate.key, position] = self.engine.run(index, hidden, batch, layer=layer)
        return found


class Scaled(CandidateWeights):
    """Candidates whose `matrices` depend on how many units there are."""

    matrices: tuple[str, ...]

    def subblock(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        found = super().subblock(candidate)
        scale = 1 + 1 / candidate.size if candidate.size else 1.0
        return {name: tensor * scale if name.endswith(self.matrices) else tensor for name, tensor in found.items()}


class Unlike(Scaled):
    """Smaller candidates that are no part of larger ones: they make up for what they lack."""

    matrices = ("down_proj.weight", "o_proj.weight")


class Normed(Scaled):
    """Units that are others in a smaller candidate, as behind a norm over all of them."""

    matrices = ("up_proj.weight", "v_proj.weight")


@pytest.mark.parametrize("weights", [CandidateWeights, Unlike, Normed])
def test_outputs_are_those_of_candidates_run_one_by_one(trained_dir: Path, weights: type[CandidateWeights]) -> None:
    setup = Setup(trained_dir, weights)
    for index in (0, 4):
        found, expected = setup.run(index), setup.one_by_one(index)
        assert set(found) == set(expected)
        for key, output in expected.items():
            assert torch.allclose(found[key], output, rtol=1e-5, atol=1e-5), key


def test_an_attention_runs_once_for_all_ffns_and_of_nested_candidates_only_two_are_loaded(
    trained_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(trained_dir)
    lent: list[Any] = []
    attentions: list[int] = []
    original = LayerVariants.layer

    @contextmanager
    def watched(variants: LayerVariants, index: int, block: Any, tensors: Any) -> Iterator[torch.nn.Module]:
        lent.append(block)
        with original(variants, index, block, tensors) as layer:
            hook = layer.self_attn.q_proj.register_forward_hook(lambda *_: attentions.append(1))
            yield layer
            hook.remove()

    monkeypatch.setattr(LayerVariants, "layer", watched)
    ffn = {c.key for c in setup.candidates if c.half == "ffn" and c.layer == 2}
    assert len(ffn) == 5
    setup.run(2, ffn)
    assert sorted(block.ffn.intermediate_size or 0 for block in lent) == [0, 48, 287]
    assert not attentions


def test_outputs_do_not_depend_on_what_else_is_wanted(trained_dir: Path) -> None:
    setup = Setup(trained_dir)
    whole = setup.run(1)
    for key in sorted({key for key, _ in whole})[::2]:
        alone = setup.run(1, {key})
        assert alone
        assert all(torch.equal(output, whole[place]) for place, output in alone.items())
