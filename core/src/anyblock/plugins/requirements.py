"""What a plugin's metadata requires: the range of core versions, checked before any import, and the rest."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version


def read_requirements(lines: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Split `Requires-Dist` lines into the range for `anyblock` and the other requirements of this environment.

    A requirement whose marker does not hold here, an optional extra's among them, does not count; several ranges for
    core are joined, and extras asked of core (`anyblock[devices]`) do not change the range.

    Raises:
        ValueError: a line is not a valid requirement.
    """
    core = SpecifierSet()
    others = []
    for line in lines:
        applies, name, specifier = _parsed(line)
        if not applies:
            continue
        if name == "anyblock":
            core &= specifier
        else:
            others.append(line)
    lower_first = sorted(map(str, core), key=lambda bound: (bound.startswith("<"), bound))
    return ",".join(lower_first), tuple(others)


@lru_cache(maxsize=1024)
def _parsed(line: str) -> tuple[bool, str, SpecifierSet]:
    # Plugins tend to have the same few lines.
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        raise ValueError(f"its metadata has the invalid requirement {line!r}") from error
    applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return applies, canonicalize_name(requirement.name), requirement.specifier


@lru_cache(maxsize=1024)
def accepts(wanted: str, version: str) -> bool:
    """Return whether `version` lies in the range `wanted` (empty means any); a pre-release of core counts."""
    return SpecifierSet(wanted).contains(version, prereleases=True)


def core_is_too_old(wanted: str, version: str) -> bool:
    """Return whether `version` lies below the range `wanted`; above it, the plugin is the one that is too old."""
    found = Version(version)
    lower = [one for one in SpecifierSet(wanted) if one.operator in (">=", ">", "~=", "==", "===")]
    return any(not one.contains(found, prereleases=True) and found < _bound(one) for one in lower)


def _bound(specifier: Specifier) -> Version:
    return Version(specifier.version.removesuffix(".*"))
