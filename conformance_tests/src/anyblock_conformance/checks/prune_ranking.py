"""Prune: are the units that are kept the ones that scored best?"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HookPlan, sweep_importance
from anyblock.contract.blocks import group_name
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.contract.residual_pruning import ResidualPruning
from anyblock.importance.router import silenced_experts

from anyblock_conformance.check import check
from anyblock_conformance.children import child_model
from anyblock_conformance.expect import NotApplicableError, equal, nothing, same, that
from anyblock_conformance.kinds import pruning_cases, smaller_sizes, works_on
from anyblock_conformance.planted import planted_subject
from anyblock_conformance.pruned import Orders, candidate, masked_teacher, mixin_for, norms_over, router_of
from anyblock_conformance.subject import Subject, logits


@check("prune.hook-targets", capability="{case}", cases=pruning_cases, depends_on=["build.layerwise"])
def check_hook_targets(subject: Subject, kind: str) -> None:
    """Every importance hook that a mixin supports is registered under its class name, fits its target, and scores every unit.

    Why: YAML files and the command line name hooks. One that watches another module scores other things than the units,
    or fails in the middle of the calibration.

    How to fix: let `hook_target` give the path, inside the decoder layer, of the module whose input (a linear map) or
    decision (a router) the hook scores; give own hooks in `importance_hooks` under their class names.
    """
    mixin = mixin_for(subject, kind)
    for hook, found in rankings(subject, mixin, kind, usable_hooks(subject, mixin, kind)).items():
        for (layer, _), scores in found.items():
            what = f"the scores of {hook.__name__} for {kind} in layer {layer}"
            equal(scores.shape[-1], mixin.size(subject.blocks[layer]), f"the number of units in {what}")
            equal(scores.dtype, torch.float32, f"the dtype of {what}")
            that(bool(torch.isfinite(scores).all()), f"{what} are not finite: {scores.tolist()}")


@check(
    "prune.kept-units",
    capability="{case}",
    cases=pruning_cases,
    depends_on=["prune.hook-targets", "prune.masked-teacher"],
)
def check_kept_units(subject: Subject, kind: str) -> None:
    """The units that score lowest are the ones that go.

    Why: a ranking that is reversed or inverted gives children that look right in every other respect, and are the worst
    possible. The suite makes some units useless, and expects the child without them to equal the teacher.

    How to fix: `scores` is higher for what matters more; `order[0]` is the index of the best unit, so `sort` puts unit
    `order[k]` into place `k`, and not unit `k` into place `order[k]`.
    """
    mixin = mixin_for(subject, kind)
    _check_composition(subject, mixin, kind)
    planted = planted_subject(subject, kind) if subject.scope == "tiny" else None
    if planted is not None:
        for hook, scores in rankings(planted.subject, mixin, kind, _usable(mixin)).items():
            _check_useless(planted.subject, mixin, kind, hook, orders_by(scores), planted.useless)
    elif hasattr(mixin, "within_groups"):
        _check_experts(subject, mixin, kind)


def rankings(
    subject: Subject, mixin: PruningMixIn, kind: str, hooks: Sequence[type[ImportanceHook]]
) -> dict[type[ImportanceHook], dict[tuple[int, str], torch.Tensor]]:
    """Return the scores that each hook gives on random tokens, for the layers that are tried and have such units."""
    plans = [
        HookPlan(kind, hook.__name__, hook, mixin, mixin.hook_target(0, hook), layers=subject.layers) for hook in hooks
    ]
    found = sweep_importance(subject.engine, plans, Batches(_tokens(subject), batch_size=4))
    return {
        hook: {(key.layer, kind): scores for key, scores in found.items() if key.hook == hook.__name__}
        for hook in hooks
    }


def orders_by(scores: Orders) -> dict[tuple[int, str], torch.Tensor]:
    """Return the orders that a run makes of scores: the best unit first, equal ones as they were."""
    return {key: (-values).argsort(dim=-1, stable=True) for key, values in scores.items()}


def usable_hooks(subject: Subject, units: PruningMixIn | ResidualPruning, kind: str) -> list[type[ImportanceHook]]:
    """Return the hook classes that can rank units; fails where there is none, or one is not registered."""
    registered, supported = subject.family.importance_hooks(), units.supported_hooks()
    that(bool(supported), f"the units of {kind} have no importance hook")
    faults = [
        f"{hook.__name__} is {'another class' if hook.__name__ in registered else 'not registered'} in importance_hooks"
        for hook in _usable(units)
        if registered.get(hook.__name__) is not hook
    ]
    nothing(faults, f"importance hooks of {kind}")
    return _usable(units)


def _usable(mixin: PruningMixIn | ResidualPruning) -> list[type[ImportanceHook]]:
    return [hook for hook in mixin.supported_hooks() if not inspect.isabstract(hook)]


def _check_composition(subject: Subject, mixin: PruningMixIn, kind: str) -> None:
    """Sorting by `p` and then by `q` is sorting by `p[q]`; with an inverted order it is not."""
    if getattr(mixin, "groups", lambda _: 1)(subject.text_config) > 1:
        return
    layer = works_on(subject, kind)[0]
    block, config = subject.blocks[layer], subject.text_config
    group, units = group_name(layer, mixin.half), mixin.size(block)
    tensors = subject.converted.load(group)
    generator = torch.Generator().manual_seed(11)
    p, q = torch.randperm(units, generator=generator), torch.randperm(units, generator=generator)
    twice = mixin.sort(layer, mixin.sort(layer, tensors, block, p, config), block, q, config)
    once = mixin.sort(layer, tensors, block, p[q], config)
    equal(sorted(twice), sorted(once), f"the tensors of {kind} sorted twice")
    for name, tensor in once.items():
        same(twice[name], tensor, f"{name} of {group} sorted by p and then by q, next to p[q],")


def _check_useless(
    subject: Subject,
    mixin: PruningMixIn,
    kind: str,
    hook: type[ImportanceHook],
    orders: Orders,
    useless: dict[int, Any],
) -> None:
    chosen, places = [], []
    for layer, units in useless.items():
        size = mixin.size(subject.blocks[layer]) - units.shape[-1]
        last = orders[layer, kind][..., size:].sort(dim=-1).values
        places.append(f"layer {layer}: it ranks {last.tolist()} last, and {units.tolist()} do nothing")
        chosen.append(candidate(subject, kind, layer, size))
    # On the tokens of the ranking: a unit that is silent on all of them is as good to remove as one that does nothing.
    ids = _tokens(subject)
    child, expected = logits(child_model(subject, chosen, orders), ids), logits(subject.reference, ids)
    if any(_spanned_by_a_norm(subject, mixin, layer) for layer in useless):
        # A norm over all units sees those that are useless after it: without them it scales the others anew.
        with masked_teacher(subject, chosen, orders) as teacher:
            expected = logits(teacher, ids)
        nothing(
            [place for place, right in zip(places, _ranked(orders, kind, useless), strict=True) if not right],
            hook.__name__,
        )
    found = "\n  ".join(places)
    subject.close(child, expected, f"logits without the units of {kind} that {hook.__name__} ranks last\n  {found}\n")


def _ranked(orders: Orders, kind: str, useless: dict[int, Any]) -> list[bool]:
    """Say for every layer whether exactly the useless units are ranked last."""
    last = {layer: orders[layer, kind][..., -units.shape[-1] :].sort(dim=-1).values for layer, units in useless.items()}
    return [torch.equal(last[layer], units) for layer, units in useless.items()]


def _tokens(subject: Subject) -> torch.Tensor:
    # One batch: a hook that removes units batch by batch may take one that is silent in the first before a useless one.
    return subject.tokens(4, 16, seed=3)


def _spanned_by_a_norm(subject: Subject, mixin: PruningMixIn, layer: int) -> bool:
    """Return whether the units of a layer go through one norm together."""
    block, tensors = subject.blocks[layer], subject.converted.meta(group_name(layer, mixin.half))
    return bool(norms_over(mixin.axes(layer, block, subject.text_config), tensors, mixin.size(block)))


def _check_experts(subject: Subject, mixin: PruningMixIn, kind: str) -> None:
    hook, layers = _usable(mixin)[0], works_on(subject, kind)
    orders = orders_by(rankings(subject, mixin, kind, [hook])[hook])
    layer = layers[-1]
    size = smaller_sizes(subject, kind, layer)[-1]
    order = mixin.within_groups(orders[layer, kind], subject.text_config)  # type: ignore[attr-defined]
    removed = order[mixin.removed(subject.blocks[layer], size, subject.text_config)]
    if removed.numel() == 0:
        raise NotApplicableError("no expert can be removed")
    found = logits(child_model(subject, [candidate(subject, kind, layer, size)], orders), subject.ids)
    teacher = subject.reference
    router = router_of(subject, teacher, mixin, layer)
    with silenced_experts(router, removed.tolist(), mixin.size(subject.blocks[layer])):
        expected = logits(teacher, subject.ids)
    subject.close(found, expected, f"logits without the experts {removed.tolist()} of layer {layer}")
