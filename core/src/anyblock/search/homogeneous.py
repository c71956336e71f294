"""The baseline: the best solution that treats all groups of a kind alike."""

from __future__ import annotations

import math
from dataclasses import replace

from anyblock.errors import BudgetError, UsageError
from anyblock.search.problem import Group, Option, Problem
from anyblock.search.solution import PROOF_GAP, Solution, relative_gap
from anyblock.search.solve import solve


def homogeneous(problem: Problem, *, gap: float = PROOF_GAP, time_limit: float = 60.0) -> Solution:
    """Return the best solution in which all groups of the same `kind` have the same label.

    Its bound and gap are those of homogeneous solutions. The difference to `solve` is what a shape of its own for every
    layer gains.

    Args:
        problem: groups with `kind`, options with `label` (or keys that mean the same in every group of a kind).
        gap: as in `solve`.
        time_limit: as in `solve`.

    Raises:
        UsageError: when groups of a kind share no label, or a group has two options with one label.
        BudgetError: when no homogeneous choice keeps the budgets.
        ExecutionError: as in `solve`.
    """
    kinds: dict[str, list[Group]] = {}
    for group in problem.groups:
        kinds.setdefault(group.kind, []).append(group)
    labelled = {kind: _labels(kind, groups) for kind, groups in kinds.items()}
    merged = Problem(
        tuple(
            Group(kind, tuple(_merge(label, options) for label, options in labels.items()))
            for kind, labels in labelled.items()
        ),
        problem.budgets,
        problem.fixed_costs,
    )
    try:
        found = solve(merged, gap=gap, time_limit=time_limit)
    except BudgetError as error:
        raise BudgetError(f"with the same option in all groups of a kind, {error.what}", hint=error.hint) from error
    choices = {
        group.key: option.key
        for kind, label in found.choices.items()
        for group, option in zip(kinds[kind], labelled[kind][label], strict=True)
    }
    score = problem.score(choices)
    bound = score if found.bound == found.score else min(found.bound, score)
    return replace(
        found, choices=choices, score=score, bound=bound, gap=relative_gap(score, bound), costs=problem.costs(choices)
    )


def _labels(kind: str, groups: list[Group]) -> dict[str, list[Option]]:
    """Return the labels that all groups have, each with its option in every group."""
    by_label = [_by_label(group) for group in groups]
    shared = [label for label in by_label[0] if all(label in options for options in by_label)]
    if not shared:
        raise UsageError(
            f"the {len(groups)} groups of kind {kind!r} have no label in common",
            expected="at least one label that every group of a kind offers",
            hint="give groups that cannot be alike different kinds",
        )
    return {label: [options[label] for options in by_label] for label in shared}


def _by_label(group: Group) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for option in group.options:
        label = option.label or option.key
        if label in found:
            raise UsageError(
                f"options {found[label].key!r} and {option.key!r} of group {group.key!r} have the same label {label!r}",
                expected="one option a label",
            )
        found[label] = option
    return found


def _merge(label: str, options: list[Option]) -> Option:
    stated = [cost for cost in options[0].costs if all(cost in option.costs for option in options)]
    costs = {cost: math.fsum(option.costs[cost] for option in options) for cost in stated}
    return Option(label, math.fsum(option.score for option in options), costs)
