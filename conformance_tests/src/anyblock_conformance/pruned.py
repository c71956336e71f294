"""Pruned children of a subject, and the teacher that each has to equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from anyblock.candidates.candidate import Candidate
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.contract.tensor_axis import Silence, TensorAxis
from anyblock.errors import UnsupportedModelError
from anyblock.importance.router import silenced_experts
from anyblock.importance.voting import RankedChoiceVotingHook

from anyblock_conformance.children import changed_teacher
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
    return Candidate(layer, subject.mixins[kind].half, kind, size, resized(subject, kind, layer, size))


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
    tensors = subject.load(wanted.group)
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
    masked: dict[str, Mapping[str, torch.Tensor]] = {}
    routed: list[Candidate] = []
    for wanted in chosen:
        mixin, block = subject.mixins[wanted.kind], subject.blocks[wanted.layer]
        tensors = masked[wanted.group] = sorted_half(subject, wanted, orders)
        try:
            silent = mixin.mask(wanted.layer, tensors, block, wanted.block_config, subject.text_config)
        except UnsupportedModelError:
            routed.append(wanted)
            continue
        if subject.scope != "tiny" and not all(bool(tensor.isfinite().all()) for tensor in silent.values()):
            routed.append(wanted)  # weights of minus infinity are in no file
        else:
            masked[wanted.group] = silent
    model = changed_teacher(subject, masked.get)
    for wanted in chosen:
        mixin, block = subject.mixins[wanted.kind], subject.blocks[wanted.layer]
        names = norms_over(
            mixin.axes(wanted.layer, block, subject.text_config), masked[wanted.group], mixin.size(block)
        )
        scale_epsilons(subject, model, names, wanted.size / mixin.size(block))
    with ExitStack() as stack:
        for wanted in routed:
            mixin, block = subject.mixins[wanted.kind], subject.blocks[wanted.layer]
            removed = mixin.removed(block, wanted.size, subject.text_config)
            router = router_of(subject, model, mixin, wanted.layer)
            stack.enter_context(silenced_experts(router, removed.tolist(), mixin.size(block)))
        yield model


def norms_over(axes: Iterable[TensorAxis], tensors: Mapping[str, torch.Tensor], units: int) -> list[str]:
    """Return the weights of norms, by checkpoint name, that divide by a mean over all units."""
    return [
        axis.name
        for axis in axes
        if axis.name in tensors
        and any(segment.silence is Silence.NORM for segment in axis.segments)
        and axis.covers(tensors[axis.name], units)
    ]


def scale_epsilons(subject: Subject, model: Any, names: Iterable[str], share: float) -> None:
    """Scale what these norms of a masked teacher add to their mean square, which is over more units than the child's.

    `w sqrt(share) x / sqrt(share mean + share epsilon)`, which the teacher then computes, is what the child computes.
    """
    for path in {path for name in names for path in subject.module_owners[name]}:
        norm = model.get_submodule(path)
        for name, value in list(vars(norm).items()):
            if isinstance(value, float) and "eps" in name:
                setattr(norm, name, value * share)


def router_of(subject: Subject, model: Any, mixin: PruningMixIn, layer: int) -> torch.nn.Module:
    """Return the router of a sparse layer."""
    path = f"{subject.family.layer_block_name(layer)}.{mixin.hook_target(layer, RankedChoiceVotingHook)}"
    return model.get_submodule(path)  # type: ignore[no-any-return]
