"""Commands, found in the metadata of the installed distributions."""

from __future__ import annotations

import contextlib
from importlib.metadata import Distribution, EntryPoint, distributions

from anyblock.contract.hookspecs import COMMANDS_GROUP


def installed_entries(group: str = COMMANDS_GROUP) -> dict[str, EntryPoint]:
    """Return every entry point of a group, by default those of commands that distributions add; nothing is imported.

    The first distribution on `sys.path` wins a name. A distribution with malformed metadata adds nothing.
    """
    found: dict[str, EntryPoint] = {}
    for installed in distributions():
        for entry in _entries(installed, group):
            found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def _entries(installed: Distribution, group: str) -> list[EntryPoint]:
    # `importlib.metadata.entry_points` raises for everybody over one malformed file.
    with contextlib.suppress(Exception):
        return list(installed.entry_points.select(group=group))
    return []
