"""Python, core, and the packages that core needs: installed versions against required ones, without importing them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from anyblock.doctor.finding import Examined, pip
from anyblock.version import VERSION

SHOWN = ("torch", "transformers", "huggingface_hub", "safetensors", "pluggy", "highspy")
"""Packages whose versions are shown even when nothing is wrong."""


def examine_packages() -> Examined:
    """Compare Python and the packages of core's `Requires-Dist` with what is installed."""
    section = Examined("Python and packages")
    section.facts["python"] = platform.python_version()
    section.facts["executable"] = sys.executable
    section.facts["platform"] = platform.platform()
    section.facts["anyblock"] = VERSION
    core = _core(section)
    requirements = [] if core is None else core.requires or []
    for name in SHOWN:
        section.facts[name] = installed_version(name)
    if core is not None:
        _check_python(section, core)
        if core.version != VERSION:
            section.wrong(
                f"the code of anyblock is {VERSION}, and its metadata says {core.version}",
                pip("install", "--force-reinstall", "--no-deps", "anyblock"),
            )
    for requirement, fault in unmet(requirements):
        section.wrong(f"anyblock needs {requirement}, {fault}", pip("install", str(requirement)))
    return section


def installed_version(name: str) -> str | None:
    """Return the installed version of a distribution; None when it is not installed or its metadata is unreadable."""
    try:
        return distribution(name).metadata["Version"] or None
    except (PackageNotFoundError, KeyError, OSError, ValueError):
        return None


def unmet(lines: Iterable[str]) -> list[tuple[Requirement, str]]:
    """Return each requirement of this environment that is not met, with the reason: what is installed instead."""
    faults = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            # An invalid line makes the plugin's own record a failed one, with its reason there.
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        requirement.marker = None
        found = installed_version(requirement.name)
        if found is None:
            faults.append((requirement, "which is not installed"))
            continue
        try:
            if not requirement.specifier.contains(found, prereleases=True):
                faults.append((requirement, f"and {found} is installed"))
        except InvalidVersion:
            faults.append((requirement, f"and what is installed calls its version {found!r}"))
    return faults


def _core(section: Examined) -> Distribution | None:
    try:
        return distribution("anyblock")
    except PackageNotFoundError:
        section.wrong(
            "anyblock is on the path but not installed, so its plugins' requirements cannot be checked",
            pip("install", "anyblock"),
        )
        return None


def _check_python(section: Examined, core: Distribution) -> None:
    wanted = core.metadata["Requires-Python"] or ""
    try:
        fits = SpecifierSet(wanted).contains(platform.python_version(), prereleases=True)
    except InvalidSpecifier:
        return
    if not fits:
        section.wrong(f"anyblock needs Python {wanted}, and this is {platform.python_version()}")
