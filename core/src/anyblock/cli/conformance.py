"""`anyblock conformance`: the suite's own command, which comes with its distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Annotated

import typer

from anyblock.errors import PluginError

SUITE = "anyblock-conformance"
COMMANDS_GROUP = "anyblock.commands"
"""Entry-point group of the suite's command; the entry point's name is the command's."""


def conformance(
    context: typer.Context,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="FAMILY | MODEL", help="What to check.")] = None,
) -> None:
    """Run the conformance suite on an adapter or a checkpoint. Needs the distribution anyblock-conformance."""
    try:
        # The suite's own metadata only: `importlib.metadata.entry_points` raises for everybody over one malformed file.
        run = distribution(SUITE).entry_points.select(group=COMMANDS_GROUP)["conformance"].load()
    except (PackageNotFoundError, KeyError) as error:
        raise PluginError(
            "the conformance suite is not installed",
            expected=f"the distribution {SUITE}, with its command",
            hint=f"python -m pip install {SUITE}",
        ) from error
    raise typer.Exit(run([*(arguments or []), *context.args]))
