"""Numbers as people read them."""

from __future__ import annotations

import math

_DECIMAL = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BINARY = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def count(value: float) -> str:
    """Return a count with three significant digits: `8.03 B`, `134 M`, `512`."""
    for size, suffix in _DECIMAL:
        if abs(value) >= size:
            return f"{_three(value / size)} {suffix}"
    return f"{value:g}"


def size(value: float) -> str:
    """Return bytes in binary units: `15 GiB`, `1.5 MiB`, `300 B`."""
    for unit, suffix in _BINARY:
        if abs(value) >= unit:
            return f"{_three(value / unit)} {suffix}"
    return f"{value:g} B"


def duration(seconds: float) -> str:
    """Return a duration: `1 h 05 min`, `2 min 03 s`, `4.2 s`, `35 ms`."""
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def quantity(value: float, unit: str) -> str:
    """Return a value in one of the units of `anyblock.contract.cost.Cost`."""
    if unit == "bytes":
        return size(value)
    if unit == "parameters":
        return count(value)
    if unit == "ms":
        return f"{value:.4g} ms"
    return f"{value:g}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a measured value with so many significant digits, or all digits before the point; a dash for None."""
    if value is None:
        return "–"
    if 10**digits <= abs(value) + 0.5 < 1e15:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def percent(value: float | None) -> str:
    """Return a share as a percentage with one decimal, and a dash for None or what is not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.1%}"


def ratio(value: float | None, base: float | None) -> str:
    """Return `value` as a percentage of `base`; a dash where that means nothing."""
    return "–" if value is None or not base else percent(value / base)


def _three(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{digits}f}"
