"""The costs that budgets can bound: core's own and those of the installed extensions."""

from __future__ import annotations

from functools import lru_cache

from anyblock.contract.cost import Cost, CountedCost
from anyblock.contract.settings import Section
from anyblock.extensions import Extensions, installed_extensions, installed_plugins

CandidateCosts = dict[str, float]
"""What one candidate, or a whole model, uses: values by the names of `known_costs`. Costs of subblocks add up."""


def known_costs() -> dict[str, type[Cost]]:
    """Return every cost by name, core's own first."""
    return _known(id(installed_plugins()))


@lru_cache(maxsize=4)
def _known(registry: int) -> dict[str, type[Cost]]:
    return _ordered(installed_extensions())


@lru_cache(maxsize=16)
def counted_costs(extensions: Extensions, settings: tuple[tuple[str, Section], ...] = ()) -> dict[str, CountedCost]:
    """Return what is counted for every candidate, by name.

    Args:
        extensions: the family, or what is installed.
        settings: `((cost, its settings), ...)`; a cost that is not there has its default ones.
    """
    given = dict(settings)
    found = {name: cost for name, cost in _ordered(extensions).items() if issubclass(cost, CountedCost)}
    return {name: cost(given.get(name)) for name, cost in found.items()}


def _ordered(extensions: Extensions) -> dict[str, type[Cost]]:
    from anyblock.costs.counted import COUNTED

    found = extensions.named("costs")
    return {name: found[name] for name in dict.fromkeys([*COUNTED, *found]) if name in found}
