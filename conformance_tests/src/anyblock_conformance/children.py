"""Children of a subject's teacher: written by `realize`, loaded as a user loads them."""

from __future__ import annotations

import copy
import json
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from anyblock.candidates.candidate import Candidate, child_blocks
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.sources import Orders
from anyblock.checkpoint.config import CONFIG
from anyblock.checkpoint.groups import FOLDER, group_file
from anyblock.checkpoint.index import INDEX
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import BlockConfig, Half, group_name
from anyblock.modeling.heterogeneous import heterogeneous
from anyblock.modeling.load import load_model
from anyblock.modeling.weights import WeightMap, quiet_loading
from anyblock.realize.realize import realize
from safetensors.torch import save_file

from anyblock_conformance.expect import close, equal, identity
from anyblock_conformance.kinds import no_op
from anyblock_conformance.rounding import tolerance_of
from anyblock_conformance.subject import RESIDENT, Subject, logits, stock_model

Removed = tuple[tuple[int, Half], ...]
"""The halves that a child lacks: `((layer, half), ...)`."""
Change: TypeAlias = Callable[[str], Mapping[str, torch.Tensor] | None]
"""Gives the tensors of a group by checkpoint name; None where they are the converted checkpoint's own."""


def write_child(subject: Subject, chosen: Sequence[Candidate], orders: Orders | None = None) -> Path:
    """Write the child that takes these candidates; the teacher's own subblocks stay where none is given."""
    teacher = SubblockCheckpoint.open(subject.converted.path)  # as a user has it: what its tensors say is believed
    weights = CandidateWeights(teacher, subject.family, subject.text_config, orders or {})
    return realize(teacher, chosen, weights, subject.place("child"))


def child_model(
    subject: Subject, chosen: Sequence[Candidate], orders: Orders | None = None, *, resident: int | None = RESIDENT
) -> Any:
    """Return the same child as a model; that of a whole checkpoint runs layer by layer."""
    if subject.scope == "tiny":
        return load_model(write_child(subject, chosen, orders), family=subject.family)
    weights = CandidateWeights(subject.converted, subject.family, subject.text_config, orders or {})
    own = {wanted.group: wanted for wanted in chosen}

    def change(group: str) -> Mapping[str, torch.Tensor] | None:
        return weights.subblock(own[group]) if group in own else None

    return layered_model(subject, change, blocks=child_blocks(subject.blocks, chosen), resident=resident)


def layered_model(
    subject: Subject,
    change: Change,
    *,
    blocks: Sequence[BlockConfig] | None = None,
    config: Mapping[str, Any] | None = None,
    resident: int | None = RESIDENT,
) -> Any:
    """Return a model that differs in some groups from the converted checkpoint, and runs layer by layer.

    Its checkpoint shares the files of all other groups, and is there as long as the model is.

    Args:
        subject: the subject.
        change: gives the tensors of a group that differs; none of a half that is gone.
        blocks: its block configs, where they differ.
        config: its `config.json`, where that differs.
        resident: see `Subject.layerwise`.
    """
    folder, base, places = subject.place("variant"), subject.converted, dict[str, str]()
    (folder / FOLDER).mkdir(parents=True)
    for group, names in base.groups.items():
        file, tensors = group_file(group), change(group)
        if tensors is None:
            # A hard link would change the inode of the file, and whatever copies that would notice.
            (folder / file).symlink_to(base.file(group).resolve())
        elif tensors:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names if tensors is None else tensors, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    written = {"block_configs": [block.to_dict() for block in blocks or base.block_configs]}
    (folder / CONFIG).write_text(json.dumps({**(config or base.config), **written}))
    model = subject.layerwise(SubblockCheckpoint.open(folder), resident=resident).model
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model


def changed_teacher(subject: Subject, change: Change) -> Any:
    """Return the reference with other values of the tensors of some groups; the model is the caller's own."""
    if subject.scope != "tiny":
        return layered_model(subject, change)
    model = stock_copy(subject)
    for group in subject.converted.groups:
        if (tensors := change(group)) is not None:
            assign(model, tensors)
    return model


def without_halves(subject: Subject, removed: Removed, *, resident: int | None = RESIDENT) -> Any:
    """Return the child that lacks these halves as a model; a tiny one is made once. It is not to be changed."""

    def make() -> Any:
        return child_model(subject, candidates_without(subject, removed), resident=resident)

    return subject.memo(f"without {removed}", make) if subject.scope == "tiny" else make()


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


def silent_teacher(subject: Subject, names: Iterable[str]) -> Any:
    """Return the reference in which these parameters and buffers, by module name, are zero."""
    silent = set(names)

    def change(group: str) -> Mapping[str, torch.Tensor] | None:
        gone = {name for name in subject.converted.groups[group] if subject.module_names[name] in silent}
        tensors = subject.load(group) if gone else {}
        return {n: torch.zeros_like(t) if n in gone else t for n, t in tensors.items()} or None

    return changed_teacher(subject, change)


def assign(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put tensors, by checkpoint name, into a loaded model; what is tied to one of them follows."""
    WeightMap(model).assign(tensors, device="cpu", where="the conformance suite")
    model.tie_weights()


def survives(subject: Subject, path: Path) -> None:
    """Fail unless a child, loaded, saved and loaded in every way, has the same tensors and logits."""
    subject.make_room()
    model = load_model(path, family=subject.family)
    expected, state = logits(model, subject.ids), _identities(model)
    allowed = tolerance_of(model, subject.ids)  # what is computed by the same steps, or with eager attention
    saved = subject.place("saved")
    with quiet_loading():
        model.save_pretrained(saved)
    del model

    def within() -> Any:
        with heterogeneous(subject.family, SubblockCheckpoint.open(path).block_configs):
            return stock_model(path)

    again: dict[str, Callable[[], Any]] = {
        "saved with save_pretrained and loaded with load_model": lambda: load_model(saved, family=subject.family),
        "loaded with load_model(attn_implementation='eager')": lambda: load_model(
            path, family=subject.family, attn_implementation="eager"
        ),
        "loaded with from_pretrained within heterogeneous()": within,
    }
    for how, load in again.items():
        subject.make_room()
        _require_same(subject, load(), state, expected, f"of the child, {how},", allowed)


def _require_same(
    subject: Subject, model: Any, state: Mapping[str, str], expected: torch.Tensor, what: str, allowed: float
) -> None:
    found = _identities(model)
    equal(sorted(found), sorted(state), f"the tensors {what}")
    for name, tensor in found.items():
        equal(tensor, state[name], f"{name} {what}")
    close(logits(model, subject.ids), expected, f"logits {what}", tolerance=allowed)


def _identities(model: Any) -> dict[str, str]:
    return {name: identity(tensor) for name, tensor in model.state_dict().items()}
