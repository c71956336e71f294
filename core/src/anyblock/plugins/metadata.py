"""Read what installed distributions say about themselves, without importing anything of theirs.

`importlib.metadata.entry_points` is not used: one unreadable `entry_points.txt` anywhere makes it raise for everybody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import Distribution, PackageNotFoundError
from typing import Any, Final

from anyblock.contract.hookspecs import EXTENSIONS_GROUP, FAMILIES_GROUP
from anyblock.plugins.settings import normalized
from anyblock.plugins.status import PluginRecord, PluginStatus

GROUPS: Final = (FAMILIES_GROUP, EXTENSIONS_GROUP)
"""The entry-point groups that core reads."""

_FILE: Final = "entry_points.txt"
_VALUE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\s*(:\s*[^\W\d]\w*(\.[^\W\d]\w*)*)?\s*(\[[^\]]*\])?")
_LOST: Final = (OSError, ValueError, KeyError, PackageNotFoundError)


@dataclass(frozen=True)
class _Found:
    """A distribution on the path: its name as compared, where it lies, and the one place of its group on the path."""

    key: str
    folder: str
    path: str
    distribution: Distribution


def read_records(distributions: Iterable[Distribution]) -> list[PluginRecord]:
    """Return a record for each distribution and group of `GROUPS`, before any question of compatibility.

    Of several distributions with one name, the first on the path counts, as for `importlib.metadata`; of several in one
    folder (a damaged installation), the highest version, so that the result does not depend on the file system.
    """
    places: dict[str, list[_Found]] = {}
    for distribution in distributions:
        found = _locate(distribution)
        places.setdefault(found.key, []).append(found)
    records: list[PluginRecord] = []
    for found_here in places.values():
        if len(found_here) > 1:
            found_here = _distinct(found_here)
        first = found_here[0]
        together = [other for other in found_here if other.folder == first.folder]
        chosen = max(together, key=lambda found: _version_key(found.distribution)) if len(together) > 1 else first
        duplicates = tuple(sorted(other.path for other in found_here if other is not chosen))
        records += _records(chosen, duplicates)
    return sorted(records, key=lambda record: (record.group, normalized(record.distribution), record.version))


def _locate(distribution: Distribution) -> _Found:
    # The folder's name tells the distribution's without parsing its metadata, which is most of discovery's time.
    path: Any = getattr(distribution, "_path", None)
    if path is not None and path.name.endswith((".dist-info", ".egg-info")):
        stem = path.name.rpartition(".")[0].partition("-")[0]
        return _Found(normalized(stem), str(path.parent), str(path), distribution)
    return _Found(normalized(_header(distribution, "Name")), "", "" if path is None else str(path), distribution)


def _distinct(found: Iterable[_Found]) -> list[_Found]:
    # One folder may be on the path twice, or under two names.
    kept: dict[str, _Found] = {}
    for one in found:
        kept.setdefault(os.path.realpath(one.path), one)
    return list(kept.values())


def _header(distribution: Distribution, name: str) -> str:
    try:
        return distribution.metadata[name] or ""
    except _LOST:
        return ""


def _version_key(distribution: Distribution) -> tuple[bool, Any, str]:
    from packaging.version import InvalidVersion, Version

    text = _header(distribution, "Version")
    try:
        return (True, Version(text), text)
    except InvalidVersion:
        return (False, Version("0"), text)


def _records(found: _Found, duplicates: tuple[str, ...]) -> Iterator[PluginRecord]:
    try:
        text = _entry_points_text(found)
    except _LOST as error:
        if _concerns_us(found):
            yield _failed(found, GROUPS[0], {}, f"{_FILE} cannot be read: {error}")
        return
    if "anyblock." not in text:
        return
    groups, faults = _parse(text)
    for group in sorted({*groups, *faults}):
        entries = groups.get(group, {})
        if group not in GROUPS:
            if meant := _misspelt(group):
                yield _failed(found, group, entries, f"unknown entry-point group {group!r}; did you mean {meant!r}?")
            continue
        if group in faults:
            yield _failed(found, group, entries, faults[group])
        else:
            yield _checked(found, group, entries, duplicates)


def _misspelt(group: str) -> str:
    # Other tools and later versions of core have groups of their own: only a near miss is a mistake.
    words = {name.rpartition(".")[2]: name for name in GROUPS}
    return "".join(words[word] for word in get_close_matches(group.rpartition(".")[2], words, n=1, cutoff=0.7))


def _entry_points_text(found: _Found) -> str:
    text = found.distribution.read_text(_FILE)
    if text is None:
        path: Any = getattr(found.distribution, "_path", None)
        if path is not None and (path / _FILE).exists():
            # `read_text` hides a missing permission and a folder in the file's place.
            path.joinpath(_FILE).read_text(encoding="utf-8")
    return text or ""


def _concerns_us(found: _Found) -> bool:
    if found.key.startswith("anyblock-"):
        return True
    try:
        requirements = found.distribution.requires or ()
    except _LOST:
        return False
    return any(re.match(r"anyblock\b(?![-_.]\w)", requirement.strip(), re.IGNORECASE) for requirement in requirements)


def _parse(text: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return `{group: {name: value}}` and `{group: fault}` for groups that begin with `anyblock.`."""
    groups: dict[str, dict[str, str]] = {}
    faults: dict[str, str] = {}
    group = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
            if group.startswith("anyblock."):
                groups.setdefault(group, {})
            continue
        if not group.startswith("anyblock."):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            faults.setdefault(group, f"{_FILE} has the malformed line {line!r}; a line is `name = module:attribute`")
        elif not _VALUE.fullmatch(value):
            faults.setdefault(group, f"entry point {name!r} has the malformed value {value!r}, not `module:attribute`")
            groups[group][name] = value
        elif groups[group].setdefault(name, value) != value:
            faults.setdefault(group, f"entry point {name!r} is registered twice, as {groups[group][name]} and {value}")
    return {group: entries for group, entries in groups.items() if entries or group in faults}, faults


def _checked(found: _Found, group: str, entries: dict[str, str], duplicates: tuple[str, ...]) -> PluginRecord:
    from packaging.version import InvalidVersion, Version

    from anyblock.plugins.requirements import read_requirements

    try:
        # Parsed once, since this is most of the time that is left; an egg keeps its requirements elsewhere.
        metadata = found.distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
        egg = found.path.endswith(".egg-info")
        required = metadata.get_all("Requires-Dist") or (found.distribution.requires if egg else ())
    except _LOST as error:
        return _failed(found, group, entries, f"its metadata cannot be read: {error}")
    if not name:
        return _failed(found, group, entries, "its metadata has no Name")
    try:
        Version(version or "")
    except InvalidVersion:
        return _failed(found, group, entries, f"its metadata has the invalid version {version or ''!r}")
    try:
        core, others = read_requirements(required or ())
    except ValueError as error:
        return _failed(found, group, entries, str(error))
    return PluginRecord(
        distribution=name,
        version=version,
        group=group,
        entries=entries,
        requires_core=core,
        path=found.path,
        requirements=others,
        duplicates=duplicates,
    )


def _failed(found: _Found, group: str, entries: dict[str, str], reason: str) -> PluginRecord:
    return PluginRecord(
        distribution=_header(found.distribution, "Name") or found.key or "(no name)",
        version=_header(found.distribution, "Version"),
        group=group,
        entries=entries,
        status=PluginStatus.FAILED,
        reason=f"{reason} ({found.path})" if found.path else reason,
        path=found.path,
    )
