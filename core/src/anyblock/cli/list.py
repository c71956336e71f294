"""`anyblock list`: what core and the installed extensions give by name, kind by kind."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from anyblock.extensions import Extensions


def list_kind(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="For instance hooks, formats or kinds; all kinds without it.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option("--family", help="A model_type: what its adapter gives as well, such as its kinds of pruning."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List what can be named in a run: importance hooks, kinds of pruning, export formats and so on, with their origin."""
    from anyblock.contract.kinds import KINDS
    from anyblock.extensions import installed_extensions
    from anyblock.family import get_family

    source = installed_extensions() if family is None else get_family(family)
    names = [kind] if kind else list(KINDS)
    found = {name: _rows(source, name) for name in names}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _print(found)


def _rows(source: Extensions, kind: str) -> list[dict[str, str]]:
    objects, origins = source.named(kind), source.origins(kind)
    return [
        {"name": name, "from": str(origins.get(name, "")), "summary": _summary(value)}
        for name, value in objects.items()
    ]


def _summary(value: Any) -> str:
    own = getattr(value, "summary", "")
    text = own if isinstance(own, str) and own else inspect.getdoc(value) or ""
    return text.partition("\n")[0]


def _print(found: dict[str, list[dict[str, str]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from anyblock.contract.kinds import KINDS

    console = Console()
    for kind, rows in found.items():
        table = Table(title=f"{kind}: {KINDS[kind].summary}", title_justify="left", box=None, pad_edge=False)
        for heading in ("Name", "From", "What"):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(row["name"], row["from"], row["summary"])
        if not rows:
            table.add_row("none", "", "" if kind != "kinds" else "each family has its own: --family MODEL_TYPE")
        console.print(table, highlight=False)
