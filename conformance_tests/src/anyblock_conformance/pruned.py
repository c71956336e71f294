"""Pruned children of a subject, and the teacher that each has to equal."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from anyblock.candidates.candidate import Candidate
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.errors import UnsupportedModelError
from anyblock.importance.router import silenced_experts
from anyblock.importance.voting import RankedChoiceVotingHook
from anyblock.modeling.skeleton import build_skeleton
from anyblock.modeling.weights import WeightMap

from anyblock_conformance.children import assign, stock_copy
from anyblock_conformance.expect import NotApplicableError
from anyblock_conformance.kinds import resized, smaller_sizes, works_on
from anyblock_conformance.subject import Subject

Orders = Mapping[tuple[int, str], torch.Tensor]


def mixin_for(subject: Subject, kind: str) -> PruningMixIn:
    """Return the adapter's mixin of this kind.

    Raises:
        NotApplicableError: it has none, or no layer has such units to lose.
    """
    if kind not in subject.mixins:
        raise NotApplicableError(f"pruning_mixins gives no {kind}")
    if not any(smaller_sizes(subject, kind, layer) for layer in works_on(subject, kind)):
        raise NotApplicableError(f"no layer can lose a unit of {kind}")
    return subject.mixins[kind]


def candidate(subject: Subject, kind: str, layer: int, size: int) -> Candidate:
    """Return the candidate of one layer with `size` units of a kind."""
    mixin = subject.mixins[kind]
    assert mixin.half != "model"
    return Candidate(layer, mixin.half, kind, size, resized(subject, kind, layer, size))


def candidates(subject: Subject, kind: str, *, smallest: bool = False) -> list[Candidate]:
    """Return one candidate for every layer with such units: the smallest, or sizes that differ from layer to layer."""
    found = []
    for layer in works_on(subject, kind):
        sizes = smaller_sizes(subject, kind, layer)
        if sizes:
            size = sizes[0] if smallest else sizes[len(sizes) // 2 - layer % max(1, len(sizes) // 2)]
            found.append(candidate(subject, kind, layer, size))
    return found


def random_orders(subject: Subject, kind: str, *, seed: int = 0) -> dict[tuple[int, str], torch.Tensor]:
    """Return a random order of the units for every layer, another one for each."""
    mixin = subject.mixins[kind]
    generator = torch.Generator().manual_seed(1000 + seed)
    units = {layer: mixin.size(subject.blocks[layer]) for layer in works_on(subject, kind)}
    return {(layer, kind): torch.randperm(count, generator=generator) for layer, count in units.items()}


def sorted_half(subject: Subject, wanted: Candidate, orders: Orders) -> dict[str, torch.Tensor]:
    """Return a half's tensors with the units of the candidate's kind in the given order."""
    tensors = subject.converted.load(wanted.group)
    order = orders.get((wanted.layer, wanted.kind))
    if order is None:
        return tensors
    mixin, block = subject.mixins[wanted.kind], subject.blocks[wanted.layer]
    return mixin.sort(wanted.layer, tensors, block, order, subject.text_config)


@contextmanager
def masked_teacher(subject: Subject, chosen: Sequence[Candidate], orders: Orders) -> Iterator[Any]:
    """Lend the stock model in which the units that these candidates lack are silenced.

    The adapter's `mask` silences them; experts of a router that no weight can silence are kept from being chosen.
    """
    model = stock_copy(subject)
    with ExitStack() as stack:
        for wanted in chosen:
            mixin, block = subject.mixins[wanted.kind], subject.blocks[wanted.layer]
            tensors = sorted_half(subject, wanted, orders)
            try:
                tensors = mixin.mask(wanted.layer, tensors, block, wanted.block_config, subject.text_config)
            except UnsupportedModelError:
                removed = mixin.removed(block, wanted.size, subject.text_config)
                router = router_of(subject, model, mixin, wanted.layer)
                stack.enter_context(silenced_experts(router, removed.tolist(), mixin.size(block)))
            assign(model, tensors)
        yield model


def router_of(subject: Subject, model: Any, mixin: PruningMixIn, layer: int) -> torch.nn.Module:
    """Return the router of a sparse layer."""
    path = f"{subject.family.layer_block_name(layer)}.{mixin.hook_target(layer, RankedChoiceVotingHook)}"
    return model.get_submodule(path)  # type: ignore[no-any-return]


# -- the residual stream: its size is the model's, so the whole checkpoint is pruned at once ------------------------


def narrower_model(subject: Subject, mixin: PruningMixIn, size: int, order: torch.Tensor) -> Any:
    """Return the child with `size` channels of the residual stream."""
    config = narrower_config(subject, mixin, size)
    model = build_skeleton(subject.family, config, subject.blocks)
    weights = WeightMap(model)
    text = subject.family.language_model_config(config)
    for group, tensors in sorted_groups(subject, mixin, order).items():
        block = subject.blocks[0]
        weights.assign(mixin.narrow(0, tensors, block, block, text), device="cpu", where=f"the narrower group {group}")
    model.tie_weights()
    subject.family.init_rotary_embedding(model, torch.device("cpu"), model.dtype)
    return model


def masked_stream(subject: Subject, mixin: PruningMixIn, size: int, order: torch.Tensor) -> Any:
    """Return the stock model in which the same channels are silenced."""
    model, text = stock_copy(subject), subject.family.language_model_config(narrower_config(subject, mixin, size))
    for tensors in sorted_groups(subject, mixin, order).values():
        assign(model, mixin.mask(0, tensors, subject.blocks[0], subject.blocks[0], text))
    return model


def sorted_groups(subject: Subject, mixin: PruningMixIn, order: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """Return all groups of the checkpoint with the channels of the residual stream in this order."""
    checkpoint, block = subject.converted, subject.blocks[0]
    return {
        group: mixin.sort(0, checkpoint.load(group), block, order, subject.text_config) for group in checkpoint.groups
    }


def narrower_config(subject: Subject, mixin: PruningMixIn, size: int) -> Any:
    """Return the child's configuration."""
    config = copy.deepcopy(subject.config)
    text = subject.family.language_model_config(config)
    for name, value in mixin.resize_config(text, size).items():  # type: ignore[attr-defined]
        setattr(text, name, value)
    return config
