"""Budgets as a person writes them: `params=0.8x`, `memory=2.5GiB`, `latency=12ms`, `kv_heads=40..100`, `params>=1B`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from anyblock.errors import ConfigError

_NUMBER: Final = r"(?:\d[\d_]*(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY: Final = re.compile(rf"({_NUMBER})\s*([A-Za-z%/]*)")
_ENTRY: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*(<=|>=|=)\s*(.+?)\s*")
_BYTES: Final = {
    **{prefix + "B": 1000.0**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)},
    **{prefix + "iB": 1024.0**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)},
    "KB": 1000.0,
}
_COUNTS: Final = {"K": 1e3, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_RATES: Final = {"tok/s": 1.0, "/s": 1.0}
UNITS: Final = {**_BYTES, **_COUNTS, **_SECONDS, **_RATES}
"""`{unit: factor}` to bytes, counts, seconds and tokens a second."""
LOWER_BOUNDED: Final = frozenset({"throughput"})
"""Costs of which more is better, so that a plain value is a lower bound."""
_EXPECTED: Final = "a number with a unit (2.5GiB, 7B, 12ms, 500tok/s), a share of the teacher (0.8x, 80%), or LOW..HIGH"


@dataclass(frozen=True)
class Quantity:
    """A number in base units (bytes, counts, seconds, tokens a second), or a share of the teacher's own cost."""

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


def parse_bound(cost: str, value: float | str) -> Bound:
    """Read the value of one budget.

    Args:
        cost: the cost's name; `throughput` is bounded from below, any other from above, unless the value says so.
        value: a number in base units, or text: `[<=|>=] NUMBER [UNIT]`, `NUMBERx`, `NUMBER%`, `LOW..HIGH`.

    Raises:
        ConfigError: the text is no quantity, or the bounds leave nothing between them.
    """
    low, high = _sides(cost, str(value))
    where = f"budget {cost}={value}"
    upper = None if high is None else _quantity(high, where)
    lower = None if low is None else _quantity(low, where)
    if lower and upper and lower.relative == upper.relative and lower.value > upper.value:
        raise ConfigError(f"{where}: the lower bound is above the upper bound", expected="LOW..HIGH with LOW <= HIGH")
    return Bound(cost, upper, lower)


def split_entry(entry: str) -> tuple[str, str]:
    """Split `params=0.8x`, `params<=0.8x` or `kv_heads>=40` into the cost and the value that `parse_bound` reads.

    Raises:
        ConfigError: the text has another form.
    """
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ConfigError(f"budget {entry!r}", expected="COST=VALUE, for instance params=0.8x or memory=2.5GiB")
    cost, operator, value = match.groups()
    return cost, value if operator == "=" else operator + value


def combine(cost: str, values: Iterable[str]) -> str:
    """Return one value that says what several budgets of one cost say together.

    A lower and an upper bound become a range; the same bound twice is one bound.

    Raises:
        ConfigError: a value is no quantity, or two of them contradict each other.
    """
    combined, *others = values
    bound = parse_bound(cost, combined)
    for value in others:
        other = parse_bound(cost, value)
        if (bound.upper and other.upper and bound.upper != other.upper) or (
            bound.lower and other.lower and bound.lower != other.lower
        ):
            raise ConfigError(
                f"two budgets contradict each other: {cost}={combined} and {cost}={value}",
                expected="one upper and one lower bound a cost, at most",
            )
        (low, high), (other_low, other_high) = _sides(cost, combined), _sides(cost, value)
        low, high = low or other_low, high or other_high
        combined = f"{low}..{high}" if low and high else f">={low}" if low else f"<={high}"
        bound = parse_bound(cost, combined)
    return combined


def _sides(cost: str, text: str) -> tuple[str | None, str | None]:
    """Return the texts of the lower and the upper bound."""
    text = text.strip()
    low, dots, high = text.partition("..")
    if dots:
        return low.strip(), high.strip()
    if text.startswith((">=", "<=")):
        bare = text[2:].strip()
        return (bare, None) if text.startswith(">=") else (None, bare)
    return (text, None) if cost in LOWER_BOUNDED else (None, text)


def _quantity(text: str, where: str) -> Quantity:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ConfigError(f"{where}: {text!r} is no quantity", expected=_EXPECTED)
    number, unit = float(match.group(1)), match.group(2)
    if not 0 < number < float("inf"):
        raise ConfigError(f"{where}: the bound is {text}", expected="a finite bound above 0")
    if unit in ("x", "%"):
        return Quantity(number / (100 if unit == "%" else 1), relative=True)
    if unit and unit not in UNITS:
        raise ConfigError(f"{where}: unknown unit {unit!r}", expected=f"one of x, %, {', '.join(UNITS)}, or no unit")
    return Quantity(number * UNITS.get(unit, 1.0), relative=False)
