"""Budgets as a person writes them: `params=0.8x`, `memory=2.5GiB`, `latency=12ms`, `kv_heads=40..100`, `params>=1B`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from anyblock.contract.cost import LatencyScenario, Rate
from anyblock.costs.registry import known_costs
from anyblock.errors import ConfigError, nearest
from anyblock.plugins.known import missing

_NUMBER: Final = r"(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_QUANTITY: Final = re.compile(rf"({_NUMBER})\s*([A-Za-z%/]*)")
_ENTRY: Final = re.compile(r"\s*([A-Za-z]\w*)\s*(<=|>=|=)\s*(.+?)\s*")
_COUNTS: Final = {"K": 1e3, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_UNITS: Final[dict[str, dict[str, float]]] = {
    "bytes": {
        **{f"{prefix}B": 1000.0**power for power, prefix in enumerate("kMGT", 1)},
        **{f"{prefix}iB": 1024.0**power for power, prefix in enumerate("KMGT", 1)},
    },
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "tokens/s": {"tok/s": 1.0, "/s": 1.0},
}
"""`{base unit: {unit: factor}}`; a base unit that is not here is a count."""
_WHOLE: Final = ("parameters", "bytes")
"""Units of which less than one is no bound that anybody means: `params=0.8` is `params=0.8x` without its x."""


@dataclass(frozen=True)
class Quantity:
    """A number in the cost's own unit, or a share of what the teacher uses."""

    value: float
    relative: bool

    def resolve(self, teacher: float) -> float:
        """Return the number that this means for a teacher whose cost is `teacher`."""
        return self.value * teacher if self.relative else self.value


@dataclass(frozen=True)
class Bound:
    """What one cost must keep; None means no bound on that side."""

    cost: str
    upper: Quantity | None
    lower: Quantity | None


def as_cost(bound: Bound, scenario: LatencyScenario) -> Bound:
    """Return a bound on a `Rate` as the bound on its cost that says the same; any other bound as it is.

    Raises:
        ConfigError: the scenario yields nothing.
    """
    rate = known_costs()[bound.cost]
    if not issubclass(rate, Rate):
        return bound
    amount = rate().amount(scenario)
    if not amount:
        raise ConfigError(
            f"a budget on {bound.cost}, of which there is none in this scenario ({scenario})",
            hint=f"set search.generated to at least 1, or bound the {rate.of} instead",
        )

    def inverse(quantity: Quantity | None) -> Quantity | None:
        if quantity is None:
            return None
        return Quantity((1.0 if quantity.relative else amount) / quantity.value, quantity.relative)

    return Bound(rate.of, upper=inverse(bound.lower), lower=inverse(bound.upper))


def parse_bound(cost: str, value: float | str) -> Bound:
    """Read the value of one budget.

    Args:
        cost: the cost's name; a `Rate` is bounded from below, any other from above, unless the value says so.
        value: a number in the base unit, or text: `[<=|>=] NUMBER [UNIT]`, `NUMBERx`, `NUMBER%`, `LOW..HIGH`.

    Raises:
        ConfigError: there is no such cost, the text is not a quantity, or the bounds leave nothing between them.
    """
    known = known_costs()
    if cost not in known:
        if absent := missing("costs", "cost", cost):
            raise ConfigError(**absent)
        raise ConfigError(f"there is no cost {cost!r}", expected=", ".join(known), hint=nearest(cost, known))
    low, high = _sides(cost, str(value))
    upper = None if high is None else _quantity(high, known[cost].unit)
    lower = None if low is None else _quantity(low, known[cost].unit)
    if lower and upper and lower.relative == upper.relative and lower.value > upper.value:
        raise ConfigError(f"{value}: the lower bound is above the upper bound", expected="LOW..HIGH with LOW <= HIGH")
    return Bound(cost, upper, lower)


def merge_entries(entries: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Bring `COST=VALUE`, `COST<=VALUE` and `COST>=VALUE` entries into one value a cost.

    A lower and an upper bound on one cost become a range; the same bound twice is one bound.

    Args:
        entries: each text with the place where it was written.

    Returns:
        `{cost: (value, place)}`.

    Raises:
        ConfigError: an entry has another form, or two entries contradict each other; their places are named.
    """
    merged: dict[str, tuple[str, str]] = {}
    for text, place in entries:
        where = f"{place}: " if place else ""
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{where}budget {text!r}", expected="COST=VALUE, for instance params=0.8x or memory=2.5GiB"
            )
        cost, operator, bare = match.groups()
        value = bare if operator == "=" else operator + bare
        known, known_place = merged.get(cost, (value, place))
        merged[cost] = (known if known == value else combine(cost, (known, known_place), (value, place)), known_place)
    return merged


def combine(cost: str, first: tuple[str, str], second: tuple[str, str]) -> str:
    """Return one value that says what two budgets of one cost say together.

    Args:
        cost: the cost's name.
        first: a value and the place where it was written.
        second: the other one.

    Raises:
        ConfigError: a value is not a quantity, or the two contradict each other; both places are named.
    """
    bounds = parse_bound(cost, first[0]), parse_bound(cost, second[0])
    for one, other in ((bounds[0].upper, bounds[1].upper), (bounds[0].lower, bounds[1].lower)):
        if one and other and one != other:
            raise ConfigError(
                "two budgets contradict each other: "
                + " and ".join(
                    f"{cost}={value}" + (f" ({place})" if place else "") for value, place in (first, second)
                ),
                expected="one upper and one lower bound a cost, at most",
            )
    (low, high), (other_low, other_high) = _sides(cost, first[0]), _sides(cost, second[0])
    low, high = low or other_low, high or other_high
    value = f"{low}..{high}" if low and high else f">={low}" if low else f"<={high}"
    parse_bound(cost, value)
    return value


def _sides(cost: str, text: str) -> tuple[str | None, str | None]:
    """Return the texts of the lower and the upper bound."""
    text = text.strip()
    low, dots, high = text.partition("..")
    if dots:
        return low.strip(), high.strip()
    if text.startswith((">=", "<=")):
        bare = text[2:].strip()
        return (bare, None) if text.startswith(">=") else (None, bare)
    return (text, None) if issubclass(known_costs()[cost], Rate) else (None, text)


def _quantity(text: str, base: str) -> Quantity:
    units = _UNITS.get(base, _COUNTS)
    match = _QUANTITY.fullmatch(text)
    unit = match.group(2) if match else ""
    if match is None or (unit and unit not in units and unit not in ("x", "%")):
        raise ConfigError(
            f"{text!r} is not a quantity",
            expected=f"a number of {base}, with one of the units {', '.join(units)} or none; a share of the teacher "
            "(0.8x, 80%); or LOW..HIGH",
        )
    number = float(match.group(1))
    if not 0 < number < float("inf"):
        raise ConfigError(f"the bound is {text}", expected="a finite bound above 0")
    if not unit and number < 1 and base in _WHOLE:
        raise ConfigError(
            f"the bound is {text} {base}",
            expected=f"{text}x for a share of the teacher, or a number of {base} from 1 on",
        )
    if unit in ("x", "%"):
        return Quantity(number / (100 if unit == "%" else 1), relative=True)
    return Quantity(number * units.get(unit, 1.0), relative=False)
