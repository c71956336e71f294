"""`anyblock doctor`: the environment, the plugins, what is wrong, and the command that mends it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from anyblock.doctor import Diagnosis


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """Examine the environment and the plugins; for everything that is wrong, show the command that mends it.

    Exits with 1 when something is wrong.
    """
    from anyblock.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        typer.echo(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        _print(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for section in diagnosis.sections.values():
        console.print(section.title, style="bold")
        for name, value in section.facts.items():
            _print_fact(console, name, value)
    if diagnosis.healthy:
        console.print("Nothing is wrong.", style="green")
        return
    console.print(f"{len(diagnosis.findings)} to mend:", style="red")
    for finding in diagnosis.findings:
        console.print(f"  - {finding.what}", markup=False)
        if finding.command:
            console.print(f"      {finding.command}", markup=False, style="cyan")


def _print_fact(console: Console, name: str, value: Any) -> None:
    if name == "plugins":
        for record in value:
            serves = ", ".join(record["names"])
            console.print(
                f"  {record['status']:<13}{record['distribution']} {record['version']} ({serves})", markup=False
            )
        return
    shown = value
    if isinstance(value, int) and ("memory" in name or "disk" in name):
        shown = f"{value / 2**30:.1f} GiB"
    elif isinstance(value, bool):
        shown = "yes" if value else "no"
    elif value in (None, []):
        shown = "-"
    elif isinstance(value, list):
        shown = ", ".join(f"{device['name']} ({device['memory'] / 2**30:.1f} GiB)" for device in value)
    console.print(f"  {name.replace('_', ' '):<21}{shown}", markup=False)
