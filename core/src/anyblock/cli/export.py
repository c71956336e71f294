"""`anyblock export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from anyblock.cli.options import Overwrite, expanded_path
from anyblock.contract.trust import TrustRemoteCode


class ExportCommand(TyperCommand):
    """Its help ends with the installed formats."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See `click.Command.format_help`."""
        from anyblock.extensions import installed_extensions

        found = installed_extensions().export_formats().items()
        self.epilog = "\n\n".join(["Formats:", *(f"{name}: {form.summary}" for name, form in found)])
        super().format_help(ctx, formatter)


def export(
    child: Annotated[
        str, typer.Argument(metavar="CHILD", help="A child, any subblock checkpoint, or a hub id of one.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.", parser=expanded_path)],
    format_name: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="The format, see below."),
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the format. May be repeated.")
    ] = None,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a child in a form that other tools read. What a format cannot express is refused, with the reason."""
    from anyblock.checkpoint.hub import resolve_model
    from anyblock.export.export import export_child

    given = dict(map(_setting, settings or []))
    written = export_child(resolve_model(child), out, format_name, settings=given, overwrite=overwrite)
    typer.echo(f"wrote {written}")


def _setting(text: str) -> tuple[str, Any]:
    from anyblock.config.overrides import parse_setting

    return parse_setting(text)
