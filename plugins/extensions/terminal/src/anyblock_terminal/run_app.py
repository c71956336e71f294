"""How the commands of this distribution are started."""

from __future__ import annotations

import typer


def run_app(app: typer.Typer, name: str, arguments: list[str]) -> int:
    """Run a command on its arguments and return its exit code."""
    try:
        app(args=arguments, prog_name=f"anyblock {name}")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
