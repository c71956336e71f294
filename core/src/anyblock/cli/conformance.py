"""`anyblock conformance`: the suite's own command, which comes with its distribution."""

from __future__ import annotations

from typing import Annotated

import typer


def conformance(
    context: typer.Context,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="FAMILY | MODEL", help="What to check.")] = None,
) -> None:
    """Run the conformance suite on an adapter or a checkpoint. Needs the distribution anyblock-conformance."""
    from anyblock.plugins.suite import COMMANDS_GROUP, suite_entry

    raise typer.Exit(suite_entry(COMMANDS_GROUP)([*(arguments or []), *context.args]))
