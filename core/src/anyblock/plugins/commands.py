"""Commands and the conformance suite, found in the metadata of the installed distributions."""

from __future__ import annotations

import contextlib
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, distributions
from typing import Any, Final

from anyblock.contract.hookspecs import COMMANDS_GROUP
from anyblock.errors import PluginError

SUITE: Final = "anyblock-conformance"
SUITES_GROUP: Final = "anyblock.suites"
"""Entry-point group of the function that runs the suite: it takes a `ModelFamily` and returns a report that has `to_dict`."""


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


def suite_entry(group: str) -> Any:
    """Return what the conformance suite registers as `conformance` in a group.

    Raises:
        PluginError: it is not installed.
    """
    try:
        return distribution(SUITE).entry_points.select(group=group)["conformance"].load()
    except (PackageNotFoundError, KeyError) as error:
        raise PluginError(
            "the conformance suite is not installed",
            expected=f"the distribution {SUITE}, with an entry point in {group}",
            hint=f"python -m pip install --upgrade {SUITE}",
        ) from error
