"""`anyblock convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyblock.cli.options import Model, Overwrite, Revision, expanded_path
from anyblock.contract.trust import TrustRemoteCode


def convert(
    model: Model,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where the subblock checkpoint goes.", parser=expanded_path)
    ],
    family: Annotated[str | None, typer.Option(help="The model_type; normally found in config.json.")] = None,
    revision: Revision = None,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Split a checkpoint into one file per subblock. Tensors are copied byte by byte, never through a model."""
    from anyblock.conversion.convert import convert_model
    from anyblock.rich_progress import terminal_progress

    progress = terminal_progress()
    written = convert_model(model, out, family, overwrite=overwrite, revision=revision, progress=progress)
    typer.echo(f"wrote {written}")
