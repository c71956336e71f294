"""`anyblock families`: every installed plugin with its status and the reason, also when every one of them is broken."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anyblock.plugins import PluginRegistry


def families(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    load: Annotated[
        bool, typer.Option("--load", help="Import every plugin, and show which cannot be and where.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when any plugin has a fault.")] = False,
) -> None:
    """List the installed adapters and extensions, with status and reason.

    Nothing is imported unless --load is given; the answer comes from the metadata of the installed distributions.
    """
    from anyblock.plugins import PluginRegistry, PluginSettings

    settings = PluginSettings.from_env()
    registry = PluginRegistry.discover(settings)
    if load:  # what a plugin prints while it is imported must not end up in the table or the JSON
        with contextlib.redirect_stdout(sys.stderr):
            registry.load_all()
    if as_json:
        _print_json(registry)
    else:
        _print_table(registry)
    if (strict or settings.strict) and (registry.notices or any(record.faulty for record in registry.records)):
        raise typer.Exit(1)


def _print_json(registry: PluginRegistry) -> None:
    data = {
        "core": registry.core_version,
        "model_types": list(registry.model_types),
        "plugins": [record.to_dict() for record in registry.records],
        "notices": list(registry.notices),
    }
    typer.echo(json.dumps(data, indent=2))


def _print_table(registry: PluginRegistry) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colors = {"ready": "green", "blocked": "dim", "incompatible": "yellow", "failed": "red", "conflicting": "red"}
    console = Console()
    if registry.records:
        table = Table(box=None, pad_edge=False)
        for heading in ("Status", "Serves", "Distribution", "Version", "Wants core"):
            table.add_column(heading, overflow="fold")
        for record in registry.records:
            table.add_row(
                Text(record.status, style=colors[record.status]),
                Text(", ".join(record.model_types) or f"extension: {', '.join(record.names)}"),
                Text(record.distribution),
                Text(record.version),
                Text(record.requires_core or "any"),
            )
        console.print(table)
        for record in registry.records:
            if record.reason:
                # Reasons are sentences with commands in them: whole lines, to be read and copied.
                console.print(f"\n{record.origin()}: {record.reason}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(
            "No adapter is installed; for instance: pip install anyblock-llama", markup=False, highlight=False
        )
    for notice in registry.notices:
        typer.echo(f"note: {notice}", err=True)
