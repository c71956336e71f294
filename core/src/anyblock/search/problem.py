"""The problem: groups of options, budgets on summed costs, and what the rest of the model already costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from anyblock.errors import UsageError, nearest
from anyblock.search.budgets import Budget


@dataclass(frozen=True)
class Option:
    """One alternative of a group.

    Attributes:
        key: names it within its group.
        score: how much choosing it hurts; lower is better, and scores of different groups add up.
        costs: what it uses, by cost name, each finite and at least zero.
        label: what `homogeneous` compares between groups (`width=768`); the key when empty.
    """

    key: str
    score: float
    costs: Mapping[str, float] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class Group:
    """Options of which exactly one is chosen: the candidates of one subblock.

    Attributes:
        key: names it within the problem (`block_3_ffn`).
        options: at least one, with unique keys.
        kind: groups of the same kind get the same label in `homogeneous` (`attention`, `ffn`).
    """

    key: str
    options: tuple[Option, ...]
    kind: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options:
            raise UsageError(f"group {self.key!r} has no options", expected="at least one option a group")
        seen: set[str] = set()
        for option in self.options:
            _check_option(self.key, option)
            if option.key in seen:
                raise UsageError(
                    f"group {self.key!r} has two options with the key {option.key!r}", expected="unique keys"
                )
            seen.add(option.key)

    def option(self, key: str) -> Option:
        """Return the option with this key.

        Raises:
            UsageError: when there is none.
        """
        for option in self.options:
            if option.key == key:
                return option
        known = [option.key for option in self.options]
        raise UsageError(f"group {self.key!r} has no option {key!r}", hint=nearest(key, known))


@dataclass(frozen=True)
class Problem:
    """Choose one option of every group: the least summed score within the budgets.

    There may be several budgets on one cost; all of them are kept.

    Attributes:
        groups: at least one, with unique keys.
        budgets: bounds on `fixed_costs[cost] + sum of the chosen options' costs[cost]`.
        fixed_costs: what the parts outside the groups use (embeddings, head, norms), by cost name; zero when absent.

    Raises:
        UsageError: for duplicate keys, numbers that are not finite or negative costs, a budget on a cost that an option
            does not state.
    """

    groups: tuple[Group, ...]
    budgets: tuple[Budget, ...] = ()
    fixed_costs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "budgets", tuple(sorted(set(self.budgets), key=lambda b: (b.cost, str(b)))))
        if not self.groups:
            raise UsageError("the problem has no groups", expected="at least one group")
        seen: set[str] = set()
        for group in self.groups:
            if group.key in seen:
                raise UsageError(f"two groups have the key {group.key!r}", expected="unique keys")
            seen.add(group.key)
        for name, value in self.fixed_costs.items():
            _check_cost(f"the fixed cost {name!r}", value)
        for budget in self.budgets:
            self.check_stated(budget.cost)

    def group(self, key: str) -> Group:
        """Return the group with this key.

        Raises:
            UsageError: when there is none.
        """
        for group in self.groups:
            if group.key == key:
                return group
        raise UsageError(f"the problem has no group {key!r}", hint=nearest(key, [group.key for group in self.groups]))

    def score(self, choices: Mapping[str, str]) -> float:
        """Return the summed score of these choices, `{group key: option key}`, rounded once."""
        return math.fsum(group.option(choices[group.key]).score for group in self.groups)

    def costs(self, choices: Mapping[str, str]) -> dict[str, float]:
        """Return every cost that all chosen options state, summed and with the fixed costs, rounded once each."""
        chosen = [group.option(choices[group.key]) for group in self.groups]
        names = {*self.fixed_costs, *chosen[0].costs}
        stated = sorted(name for name in names if all(name in option.costs for option in chosen))
        return {name: math.fsum([self.fixed_costs.get(name, 0.0), *(o.costs[name] for o in chosen)]) for name in stated}

    def keeps(self, choices: Mapping[str, str]) -> bool:
        """Return whether these choices keep every budget."""
        costs = self.costs(choices)
        return all(budget.keeps(costs[budget.cost]) for budget in self.budgets)

    def check_stated(self, cost: str) -> None:
        """Check that every option states a cost.

        Raises:
            UsageError: names the first option that does not.
        """
        for group in self.groups:
            for option in group.options:
                if cost not in option.costs:
                    raise UsageError(
                        f"option {option.key!r} of group {group.key!r} does not state the cost {cost!r}",
                        expected="every option states every cost that is budgeted or looked at",
                        hint=nearest(cost, option.costs) or f"it states {', '.join(sorted(option.costs)) or 'none'}",
                    )


def _check_option(group: str, option: Option) -> None:
    name = f"option {option.key!r} of group {group!r}"
    if not math.isfinite(option.score):
        raise UsageError(
            f"the score of {name} is {option.score}",
            expected="a finite number",
            hint="leave this option out, or score it again",
        )
    for cost, value in option.costs.items():
        _check_cost(f"the cost {cost!r} of {name}", value)


def _check_cost(what: str, value: float) -> None:
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"{what} is {value}", expected="a finite number that is not negative")


def restrict(problem: Problem, *, fixed: Mapping[str, str], forbidden: Mapping[str, Set[str]]) -> Problem:
    """Return the problem without the forbidden options, and with each fixed option alone in its group.

    Args:
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
