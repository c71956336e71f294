"""The conformance suite, found through its own metadata: core depends on nothing of it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, Final

from anyblock.errors import PluginError

SUITE: Final = "anyblock-conformance"
COMMANDS_GROUP: Final = "anyblock.commands"
"""Entry-point group of the suite's command; the entry point's name is the command's."""
SUITES_GROUP: Final = "anyblock.suites"
"""Entry-point group of the function that runs it: it takes a `ModelFamily` and returns a report that has `to_dict`."""


def suite_entry(group: str) -> Any:
    """Return what the suite registers as `conformance` in a group.

    Raises:
        PluginError: it is not installed.
    """
    try:
        # Its own metadata only: `importlib.metadata.entry_points` raises for everybody over one malformed file.
        return distribution(SUITE).entry_points.select(group=group)["conformance"].load()
    except (PackageNotFoundError, KeyError) as error:
        raise PluginError(
            "the conformance suite is not installed",
            expected=f"the distribution {SUITE}, with an entry point in {group}",
            hint=f"python -m pip install --upgrade {SUITE}",
        ) from error
