"""`anyblock export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyblock.cli.options import Overwrite
from anyblock.export import FORMATS

_LISTED = "; ".join(f"{name}: {form.summary}" for name, form in FORMATS.items())


def export(
    child: Annotated[Path, typer.Argument(metavar="CHILD", help="A child, or any subblock checkpoint.")],
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
    from anyblock.export.export import export_child

    written = export_child(child, out, format_name, overwrite=overwrite)
    typer.echo(f"wrote {written}")
