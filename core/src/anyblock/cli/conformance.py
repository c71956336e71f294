"""`anyblock conformance`: the suite's own command, which comes with its distribution."""

from __future__ import annotations

from typing import Annotated

import typer

from anyblock.errors import PluginError

COMMANDS_GROUP = "anyblock.commands"
"""Entry-point group of distributions that bring a command; the entry point's name is the command's."""


def conformance(
    context: typer.Context,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="FAMILY | MODEL", help="What to check.")] = None,
) -> None:
    """Run the conformance suite on an adapter or a checkpoint. Needs the distribution anyblock-conformance."""
    from importlib.metadata import entry_points

    for entry_point in entry_points(group=COMMANDS_GROUP, name="conformance"):
        raise typer.Exit(entry_point.load()([*(arguments or []), *context.args]))
    raise PluginError(
        "the conformance suite is not installed",
        expected="the distribution anyblock-conformance",
        hint="python -m pip install anyblock-conformance",
    )
