"""All checks of the suite, in the order in which they run."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from typing import Final

from anyblock_conformance.check import Check, check_of
from anyblock_conformance.levels import Level

MODULES: Final = (
    "structure_hooks",
    "structure_model",
    "structure_groups",
    "structure_shapes",
    "convert",
    "build_run",
    "build_no_op",
    "build_child",
    "build_manners",
    "prune_sizes",
    "prune_weights",
    "prune_ranking",
    "prune_costs",
    "prune_residual",
    "search",
)


@cache
def all_checks() -> tuple[Check, ...]:
    """Return every check, level by level; a check comes after those that it depends on.

    Raises:
        ValueError: two checks have one id, or a check depends on one that does not come before it.
    """
    found = [
        check
        for name in MODULES
        for value in vars(importlib.import_module(f"anyblock_conformance.checks.{name}")).values()
        if (check := check_of(value)) is not None and value.__module__ == f"anyblock_conformance.checks.{name}"
    ]
    order = list(Level)
    found.sort(key=lambda check: order.index(check.level))
    require_order(found)
    return tuple(found)


def require_order(checks: Iterable[Check]) -> None:
    """Refuse checks with one id, or in an order in which a dependency comes later.

    Raises:
        ValueError: names the check.
    """
    seen: set[str] = set()
    for check in checks:
        if check.id in seen:
            raise ValueError(f"two checks are called {check.id}")
        if missing := set(check.depends_on) - seen:
            raise ValueError(f"{check.id} depends on {', '.join(sorted(missing))}, which do not come before it")
        seen.add(check.id)


def dependents(identifier: str, checks: Iterable[Check] | None = None) -> set[str]:
    """Return the ids of all checks that depend on this one, directly or through others."""
    found = {identifier}
    for check in all_checks() if checks is None else checks:
        if found & set(check.depends_on):
            found.add(check.id)
    return found - {identifier}
