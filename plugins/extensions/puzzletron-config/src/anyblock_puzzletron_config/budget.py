"""The guide's constraints as budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anyblock.contract.config_tree import KeyPath, Tree
from anyblock.errors import ConfigError, nearest

from anyblock_puzzletron_config.tables import CONSTRAINTS


def constraint_entries(values: Any, path: KeyPath, tree: Tree) -> Iterator[tuple[str, KeyPath]]:
    """Yield every constraint below `path` as a budget `COST<=VALUE` with its own key path.

    Args:
        values: the resolved value of `mip.human_constraints` or `mip.mip_constraints`.
        path: its key path.
        tree: tells where it was written.

    Raises:
        ConfigError: there are several sets of constraints, or one of them has no meaning here.
    """
    if isinstance(values, list):
        if len(values) != 1:
            raise ConfigError(
                f"{tree.place(path)} has {len(values)} sets of constraints",
                expected="one",
                hint="run once, then use `anyblock search RUN --budget ...` for the others",
            )
        values, path = values[0], (*path, 0)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{tree.place(path)} is {values!r}", expected="a mapping of constraints")
    for name, value in values.items():
        if value is None:
            continue
        if name not in CONSTRAINTS:
            hint = nearest(name, CONSTRAINTS)
            if name == "target_time_to_first_token":
                hint = "bound the latency with search.generated=0, which is that time"
            raise ConfigError(
                f"{tree.place((*path, name))}: unknown constraint", expected=", ".join(CONSTRAINTS), hint=hint
            )
        cost, unit = CONSTRAINTS[name]
        yield f"{cost}{_bound(value, cost, unit)}", (*path, name)


def _bound(value: Any, cost: str, unit: str) -> str:
    """Return an operator and a value; a list is `[low, high]`, and null in it no bound."""
    if not isinstance(value, list):
        return f"={value}{unit}" if cost == "throughput" else f"<={value}{unit}"
    low, high = [*value, None, None][:2]
    if low is None or high is None:
        return f">={low}{unit}" if high is None else f"<={high}{unit}"
    return f"={low}{unit}..{high}{unit}"
