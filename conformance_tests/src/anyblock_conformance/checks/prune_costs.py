"""Prune: does a child cost what was predicted?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from anyblock.candidates.candidate import Candidate, child_blocks
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.sources import PlannedTeacher
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import BlockConfig
from anyblock.costs.cost_model import Scenario, add_costs, fixed_costs, model_costs, subblock_costs
from anyblock.costs.probed_cache import Kept, kept_by_layers
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.load import load_model

from anyblock_conformance.check import check
from anyblock_conformance.children import child_model, write_child
from anyblock_conformance.expect import NotApplicableError, equal
from anyblock_conformance.kinds import claimed_kinds, pruning_cases
from anyblock_conformance.pruned import candidates, mixin_for, random_orders
from anyblock_conformance.subject import Subject

_SCENARIO = Scenario(batch_size=2, length=12, cache_dtype="float32")


@check("prune.costs", capability="{case}", cases=pruning_cases, depends_on=["prune.shapes"])
def check_costs(subject: Subject, kind: str) -> None:
    """Parameters and bytes, predicted from shapes before anything is written, are those of the finished child.

    Why: the search keeps its budget by these predictions.

    How to fix: `narrow` has to work on tensors on the meta device as on real ones, and tensors must not be stored that the
    model does not have.
    """
    mixin_for(subject, kind)
    teacher = model_costs(subject.family, subject.config, subject.blocks, meta_tensors(subject.converted), _SCENARIO)
    equal(
        teacher.params,
        counted(subject.unloaded),
        "the predicted parameters of the teacher (counted in the stock model)",
    )
    chosen = candidates(subject, kind)
    path = write_child(subject, chosen, random_orders(subject, kind))
    child = SubblockCheckpoint.open(path)
    found = _predicted(subject, chosen)
    model = load_model(path, family=subject.family)
    what = f"with {kind} {[wanted.size for wanted in chosen]}"
    equal(found["params"], counted(model), f"the predicted parameters of a child {what} (counted in the model)")
    stored = sum(child.entry(name).nbytes for names in child.groups.values() for name in names)
    equal(found["weight_memory"], stored, f"the predicted weight bytes of a child {what} (stored in its files)")


@check("prune.cache-costs", capability="build", depends_on=["convert.bit-for-bit", "prune.shapes"])
def check_cache_costs(subject: Subject) -> None:
    """What a layer keeps between decoding steps is what `cache_spec` says, for the teacher and for children with fewer heads.

    Why: at long contexts the cache is the larger part of the memory, and budgets on it are kept by this number.

    How to fix: count in `cache_spec` keys and values of the block config's own key-value heads, the window of layers that
    have one, and the fixed state of Mamba and convolution layers (`attention_cache` does it for softmax attention).
    """
    _check_kept(subject, "the teacher", subject.reference, subject.blocks)
    for kind in claimed_kinds(subject):
        if subject.mixins[kind].half == "attention" and (chosen := candidates(subject, kind)):
            name = f"a child with {kind} {[wanted.size for wanted in chosen]}"
            _check_kept(subject, name, child_model(subject, chosen), child_blocks(subject.blocks, chosen))


def _check_kept(subject: Subject, name: str, model: Any, blocks: Sequence[BlockConfig]) -> None:
    for length in (3, 12):
        found = _kept(subject, model, length)
        for layer in subject.layers:
            if blocks[layer].attention.no_op:
                continue  # it writes two numbers a token, which no budget counts
            kept = sum(tensor.numel() for tensor in found[layer].tensors)
            spec = subject.family.cache_spec(subject.config, blocks[layer], layer)
            equal(
                2 * spec.elements(length),
                kept,
                f"elements that layer {layer} of {name} keeps for 2 sequences of {length} tokens",
            )


def _predicted(subject: Subject, chosen: list[Candidate]) -> dict[str, float]:
    """Return the costs of a child as a run predicts them: of the chosen candidates, and the teacher's own for the rest."""
    shapes, family = meta_tensors(subject.converted), subject.family
    own = model_costs(family, subject.config, subject.blocks, shapes, _SCENARIO)
    parts = dict(own.subblocks)
    weights = CandidateWeights(PlannedTeacher(subject.blocks), family, subject.text_config, {})
    for wanted in chosen:
        parts[wanted.group] = subblock_costs(
            family,
            subject.config,
            wanted.block_config,
            wanted.layer,
            wanted.half,
            weights.shapes(wanted, shapes[wanted.group]),
            _SCENARIO,
        )
    fixed = fixed_costs(family, subject.config, shapes, subject.num_layers, _SCENARIO)
    return add_costs([fixed, *parts.values()])


def meta_tensors(checkpoint: SubblockCheckpoint) -> dict[str, dict[str, torch.Tensor]]:
    """Return every tensor on the meta device, by group and name."""
    return {group: checkpoint.meta(group) for group in checkpoint.groups}


def counted(model: Any) -> int:
    """Return the elements of all parameters and stored buffers, shared ones once."""
    return sum(tensor.numel() for tensor in {id(t): t for t in model.state_dict(keep_vars=True).values()}.values())


def _kept(subject: Subject, model: Any, length: int) -> list[Kept]:
    layers = [model.get_submodule(subject.family.layer_block_name(layer)) for layer in range(subject.num_layers)]
    try:
        return kept_by_layers(model, layers, subject.tokens(2, length))
    except UnsupportedModelError as error:
        raise NotApplicableError(str(error)) from error
