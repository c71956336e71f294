"""Prune: does a child compute what the teacher computes without the removed units?"""

from __future__ import annotations

from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import HALVES
from anyblock.modeling.load import load_model

from anyblock_conformance.check import check
from anyblock_conformance.children import changed_teacher, child_model, survives, write_child
from anyblock_conformance.decoding import cached_logits, workable_steps
from anyblock_conformance.expect import NotApplicableError
from anyblock_conformance.kinds import claimed_kinds, pruning_cases
from anyblock_conformance.pruned import (
    candidates,
    masked_teacher,
    mixin_for,
    random_orders,
    sorted_half,
)
from anyblock_conformance.subject import Subject, logits


@check("prune.sort", capability="{case}", cases=pruning_cases, depends_on=["prune.shapes"])
def check_sort(subject: Subject, kind: str) -> None:
    """Sorting the units, differently in every layer, leaves the model's function as it is.

    Why: units are sorted once and children are cut off the end. A tensor that is left unsorted belongs to other units
    than the rest.

    How to fix: name in the layer descriptor every tensor that has an entry for each unit: weights on both sides, biases,
    norms over all units, and a router's rows.
    """
    mixin_for(subject, kind)
    own, orders = {wanted.group: wanted for wanted in candidates(subject, kind)}, random_orders(subject, kind)
    model = changed_teacher(subject, lambda group: sorted_half(subject, own[group], orders) if group in own else None)
    subject.close(logits(model, subject.ids), subject.logits, f"logits after sorting {kind}, next to those before")


@check("prune.masked-teacher", capability="{case}", cases=pruning_cases, depends_on=["prune.sort", "build.buffers"])
def check_masked_teacher(subject: Subject, kind: str) -> None:
    """A pruned child gives the logits of the teacher whose removed units are silenced.

    Why: this is what pruning means; the scores of all candidates rest on it.

    How to fix: `narrow` keeps the first units of every tensor along the axis, and nothing else changes; for fewer
    key-value heads each kept head serves its own query heads. `mask` silences exactly the others.
    """
    mixin_for(subject, kind)
    orders = random_orders(subject, kind)
    for smallest in (False, True):
        chosen = candidates(subject, kind, smallest=smallest)
        found = logits(child_model(subject, chosen, orders), subject.ids)
        with masked_teacher(subject, chosen, orders) as teacher:
            expected = logits(teacher, subject.ids)
        del teacher
        sizes = [wanted.size for wanted in chosen]
        subject.close(found, expected, f"logits with {kind} {sizes}, next to the masked teacher's")


@check(
    "prune.mixed-child",
    capability="build",
    depends_on=["prune.masked-teacher", "build.cached-decoding", "build.save-reload", "build.no-op-both"],
)
def check_mixed_child(subject: Subject) -> None:
    """A child in which both halves of every layer are pruned equals the masked teacher, and decodes with a cache.

    Why: the search combines sizes freely. Overrides of one half must not depend on the other one.

    How to fix: give in `block_config_to_layer_overrides` the attributes of both halves, independently of each other.
    """
    kinds = claimed_kinds(subject)
    chosen, orders = [], {}
    for half in HALVES:
        own = [kind for kind in kinds if subject.mixins[kind].half == half and candidates(subject, kind)]
        for kind in own[:1]:
            chosen += candidates(subject, kind)
            orders.update(random_orders(subject, kind))
    if len({wanted.half for wanted in chosen}) < 2:
        raise NotApplicableError("the adapter declares no kind of pruning for one of the halves")
    path = write_child(subject, chosen, orders)
    with masked_teacher(subject, chosen, orders) as teacher:
        expected = logits(teacher, subject.ids)
        # Not every stock model decodes as it computes without a cache; the child has to do what the stock model does.
        steps = workable_steps(teacher, subject.ids, subject.tolerance)
        stepwise = None if steps is None else (steps, cached_logits(teacher, subject.ids, steps))
    del teacher
    what = ", ".join(f"{wanted.label} in layer {wanted.layer}" for wanted in chosen)
    child = load_model(path, family=subject.family)
    if subject.scope != "tiny":
        child = subject.layerwise(SubblockCheckpoint.open(path)).model
    subject.close(logits(child, subject.ids), expected, f"logits with {what}, next to the masked teacher's")
    if stepwise is not None:
        steps, expected_cached = stepwise
        found = cached_logits(child, subject.ids, steps)
        subject.close(found, expected_cached, f"logits with a cache with {what}, next to the masked teacher's")
    del child
    survives(subject, path)
