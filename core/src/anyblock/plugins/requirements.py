"""What a plugin's metadata requires: the range of core versions, checked before the plugin is imported, and the rest."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


def read_requirements(lines: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Split `Requires-Dist` lines into the range for `anyblock` and the other requirements of this environment.

    A requirement whose marker does not hold here, an optional extra's among them, does not count; several ranges for core
    are joined, and extras asked of core (`anyblock[report]`) do not change the range.

    Raises:
        ValueError: a line is not a valid requirement.
    """
    core = SpecifierSet()
    others = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise ValueError(f"its metadata has the invalid requirement {line!r}") from error
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if canonicalize_name(requirement.name) == "anyblock":
            core &= requirement.specifier
        else:
            others.append(line)
    return str(core), tuple(others)


def accepts(wanted: str, version: str) -> bool:
    """Say whether `version` lies in the range `wanted` (empty means any); a pre-release of core counts."""
    return SpecifierSet(wanted).contains(version, prereleases=True)
