"""Children of a subject's teacher: written by `realize`, loaded as a user loads them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from anyblock.candidates.candidate import Candidate, child_blocks
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.sources import Orders
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import Half, group_name
from anyblock.modeling.heterogeneous import heterogeneous
from anyblock.modeling.load import load_model
from anyblock.modeling.skeleton import build_skeleton, require_materialised
from anyblock.modeling.weights import WeightMap, quiet_loading
from anyblock.realize.realize import realize

from anyblock_conformance.expect import close, equal, same
from anyblock_conformance.kinds import no_op
from anyblock_conformance.subject import Subject, logits, stock_model

Removed = tuple[tuple[int, Half], ...]
"""The halves that a child lacks: `((layer, half), ...)`."""


def write_child(subject: Subject, chosen: Sequence[Candidate], orders: Orders | None = None) -> Path:
    """Write the child that takes these candidates; the teacher's own subblocks stay where none is given."""
    weights = CandidateWeights(subject.converted, subject.family, subject.text_config, orders or {})
    return realize(subject.converted, chosen, weights, subject.place("child"))


def child_model(subject: Subject, chosen: Sequence[Candidate], orders: Orders | None = None) -> Any:
    """Return the same child as a model; of a checkpoint that may be large it is made without writing it."""
    if subject.scope == "tiny":
        return load_model(write_child(subject, chosen, orders), family=subject.family)
    family, teacher = subject.family, subject.converted
    model = build_skeleton(family, subject.config, child_blocks(subject.blocks, chosen))
    target, own = WeightMap(model), {wanted.group: wanted for wanted in chosen}
    weights = CandidateWeights(teacher, family, subject.text_config, orders or {})
    for group in teacher.groups:
        tensors = weights.subblock(own[group]) if group in own else teacher.load(group)
        target.assign(tensors, device="cpu", where=f"group {group} of a child")
    model.tie_weights()
    family.init_rotary_embedding(model, torch.device("cpu"), model.dtype)
    require_materialised(model, "a child")
    return model


def without_halves(subject: Subject, removed: Removed) -> Any:
    """Return the child that lacks these halves as a model; it is made once and not to be changed."""
    made: dict[Removed, Any] = subject.memo("children without halves", dict)
    if removed not in made:
        made[removed] = child_model(subject, candidates_without(subject, removed))
    return made[removed]


def candidates_without(subject: Subject, removed: Iterable[tuple[int, Half]]) -> list[Candidate]:
    """Return the candidates that remove these halves."""
    return [no_op(subject, layer, half) for layer, half in removed]


def tensors_of(subject: Subject, layer: int, half: str) -> set[str]:
    """Return the parameters and stored buffers of one half, by module name, as the adapter's groups say."""
    group = group_name(layer, half)
    return {subject.module_names[name] for name in subject.converted.groups.get(group, ())}


def stock_copy(subject: Subject) -> Any:
    """Return a model of its own, equal to the stock one."""
    return copy.deepcopy(subject.stock)


@torch.no_grad()
def silence(model: Any, names: Iterable[str]) -> Any:
    """Set these parameters and buffers of a model to zero, and return the model."""
    state = model.state_dict(keep_vars=True)
    for name in names:
        state[name].zero_()
    return model


def assign(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put tensors, by checkpoint name, into a loaded model; what is tied to one of them follows."""
    WeightMap(model).assign(tensors, device="cpu", where="the conformance suite")
    model.tie_weights()


def survives(subject: Subject, model: Any, path: Path) -> None:
    """Fail unless a loaded child, saved and loaded in every way, has the same tensors and logits."""
    expected, state = logits(model, subject.ids), model.state_dict()
    saved = subject.place("saved")
    with quiet_loading():
        model.save_pretrained(saved)
    again = {
        "saved with save_pretrained and loaded with load_model": load_model(saved, family=subject.family),
        "loaded with load_model(attn_implementation='eager')": load_model(
            path, family=subject.family, attn_implementation="eager"
        ),
    }
    with heterogeneous(subject.family, SubblockCheckpoint.open(path).block_configs):
        again["loaded with from_pretrained within heterogeneous()"] = stock_model(path)
    for how, other in again.items():
        found = other.state_dict()
        equal(sorted(found), sorted(state), f"the tensors of the child, {how},")
        for name, tensor in state.items():
            same(found[name], tensor, f"{name} of the child, {how},")
        close(logits(other, subject.ids), expected, f"logits of the child, {how},")
