"""Leave options out of a problem."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from anyblock.errors import UsageError
from anyblock.search.problem import Problem


def restrict(problem: Problem, *, fixed: Mapping[str, str], forbidden: Mapping[str, Set[str]]) -> Problem:
    """Return the problem without the forbidden options, and with each fixed option alone in its group.

    Args:
        problem: what to restrict.
        fixed: `{group key: option key}`.
        forbidden: `{group key: option keys}`.

    Raises:
        UsageError: for an unknown group or option, or a group that is left without options.
    """
    for key, option in fixed.items():
        problem.group(key).option(option)
        if option in forbidden.get(key, ()):
            raise UsageError(f"option {option!r} of group {key!r} is both fixed and forbidden")
    for key, options in forbidden.items():
        for option in sorted(options):
            problem.group(key).option(option)
    groups = []
    for group in problem.groups:
        banned = forbidden.get(group.key, frozenset())
        wanted = fixed.get(group.key)
        kept = tuple(o for o in group.options if o.key not in banned and wanted in (None, o.key))
        if not kept:
            raise UsageError(f"every option of group {group.key!r} is forbidden", expected="at least one that is not")
        groups.append(group if len(kept) == len(group.options) else replace(group, options=kept))
    return replace(problem, groups=tuple(groups))
