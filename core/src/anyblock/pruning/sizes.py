"""Reading lists of candidate sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from anyblock.errors import UsageError

_RELATIVE: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(x|%)\s*")


def parse_sizes(sizes: Iterable[int | float | str], full: int, multiple: int = 1) -> list[int]:
    """Turn sizes as people write them into numbers of units, ascending and without duplicates.

    Args:
        sizes: numbers of units (`2048`), fractions (`0.5`), or text (`"2048"`, `"0.5x"`, `"50%"`). A fraction is
            rounded to the nearest multiple, but to one multiple at least and to the teacher's size at most; a number of
            units is taken as it stands.
        full: the teacher's number of units.
        multiple: what fractions are rounded to.

    Raises:
        UsageError: not a size, a size below one unit, or one above the teacher's.
    """
    if multiple < 1 or full < 1:
        raise UsageError(f"sizes of {full} units in multiples of {multiple}", expected="both at least 1")
    return sorted({_parse(size, full, multiple) for size in sizes})


def _parse(size: int | float | str, full: int, multiple: int) -> int:
    units = _units(size)
    if isinstance(units, float):
        if not 0 < units <= 1:
            raise UsageError(
                f"the size {size!r} is {units:g} of the teacher", expected="a fraction above 0 and up to 1"
            )
        return min(max(round(units * full / multiple), 1) * multiple, full)
    if not 1 <= units <= full:
        raise UsageError(
            f"the size {size!r} is not possible, the teacher has {full} units", expected=f"1 to {full}, or a fraction"
        )
    return units


def _units(size: int | float | str) -> int | float:
    if isinstance(size, bool):
        raise UsageError(f"{size!r} is not a size", expected="a number of units, a fraction, or text such as '0.5x'")
    if not isinstance(size, str):
        return size
    if relative := _RELATIVE.fullmatch(size):
        return float(relative[1]) / (100 if relative[2] == "%" else 1)
    try:
        return float(size) if "." in size else int(size)
    except ValueError as error:
        raise UsageError(f"{size!r} is not a size", expected="2048, 0.5, '0.5x' or '50%'") from error
