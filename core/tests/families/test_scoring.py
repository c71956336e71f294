"""What holds for every family when candidates are scored: what they share, and what is kept of the teacher, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anyblock import get_family
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.library import list_candidates
from anyblock.candidates.no_op import NoOp
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import HALVES
from anyblock.extensions import installed_plugins
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.linear_head import find_linear_head
from anyblock.modeling.spool import IN_MEMORY
from anyblock.modeling.variants import LayerVariants
from anyblock.scoring.layer_outputs import LayerOutputs

FAMILIES = [name for name in installed_plugins().model_types if name != "example"]


@pytest.mark.parametrize("model_type", FAMILIES)
@torch.no_grad()
def test_outputs_and_logits_are_those_of_the_stock_model(model_type: str, tiny_teacher: Callable[[str], Path]) -> None:
    """Of every candidate that the family can have, run with what it shares; the head counts as linear where nothing follows it."""
    family = get_family(model_type)
    engine = LayerwiseModel(SubblockCheckpoint.open(tiny_teacher(model_type)), family, dtype=torch.float32)
    blocks = engine.block_configs
    sizes = {}
    for kind, mixin in family.pruning_mixins().items():
        block = next((block for block in blocks if mixin.applies_to(block)), None)
        if mixin.half in HALVES and block is not None:
            legal = [size for size in mixin.legal_sizes(block, engine.config) if size < mixin.size(block)]
            few = sorted({legal[0], legal[len(legal) // 2], legal[-1]}) if legal else []
            sizes[kind] = lambda _, few=few: few
    listed = list_candidates(family, engine.config, blocks, sizes, sources={"no_op": NoOp()})
    candidates = [candidate for candidate in listed if candidate.kind != "teacher"]
    by_layer = [[c.block_config for c in candidates if c.layer == index] for index in range(engine.num_layers)]
    weights = CandidateWeights(engine.checkpoint, family, engine.config, {})
    variants = LayerVariants(engine, by_layer)
    vocabulary = engine.config.vocab_size
    text = Batches(torch.randint(1, vocabulary, (3, 8), generator=torch.Generator().manual_seed(0)), 2)
    batches, hidden = engine.prepare_all(text, IN_MEMORY)
    outputs = LayerOutputs(engine, candidates, weights, batches, IN_MEMORY)
    wanted = {candidate.key for candidate in candidates}
    found = set()
    for index in range(engine.num_layers):
        for candidate, position, output in outputs.run(index, hidden, wanted):
            found.add((candidate.key, position))
            with variants.layer(index, candidate.block_config, weights.block(candidate)) as layer:
                expected = engine.run(index, hidden[position], batches[position], layer=layer)
            torch.testing.assert_close(
                output, expected, rtol=1e-4, atol=1e-5, msg=lambda text, c=candidate: f"{c.key}: {text}"
            )
        pairs = zip(hidden, batches, strict=True)
        hidden = IN_MEMORY.collect(engine.run(index, states, batch) for states, batch in pairs)
    assert found == {(key, position) for key in wanted for position in range(2)}
    head = find_linear_head(engine)
    capped = getattr(engine.config, "final_logit_softcapping", None) is not None
    scales = ("logit_scale", "logits_scaling", "lm_head_multiplier")
    scaled = any(getattr(engine.config, name, 1.0) != 1.0 for name in scales)
    assert (head is None) == (capped or scaled)
    if head is not None:
        logits = engine.logits(hidden[0], batches[0])
        torch.testing.assert_close(head(engine.final_hidden(hidden[0], batches[0])), logits, rtol=1e-5, atol=1e-5)
