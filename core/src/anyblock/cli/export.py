"""`anyblock export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyblock.cli.options import Overwrite
from anyblock.export import FORMATS

_LISTED = "; ".join(f"{name}: {form.summary}" for name, form in FORMATS.items())


def export(
    child: Annotated[
        str, typer.Argument(metavar="CHILD", help="A child, any subblock checkpoint, or a hub id of one.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    format_name: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help=f"{_LISTED}; or a format of the child's adapter or an extension."
        ),
    ],
    overwrite: Overwrite = False,
) -> None:
    """Write a child in a form that other tools read. What a format cannot express is refused, with the reason."""
    from anyblock.checkpoint.hub import resolve_model
    from anyblock.export.export import export_child

    written = export_child(resolve_model(child), out, format_name, overwrite=overwrite)
    typer.echo(f"wrote {written}")
