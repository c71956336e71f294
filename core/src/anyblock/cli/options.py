"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def expanded_path(text: str) -> Path:
    """Read a path; `~` is the home folder, also where no shell has put that in its place."""
    return Path(text).expanduser()


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A Hugging Face directory, a subblock checkpoint or a hub id.")
]
Revision = Annotated[str | None, typer.Option(help="Revision of a hub id.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at OUT.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")]
Dtype = Annotated[
    str,
    typer.Option(help="float32, bfloat16, float16, or auto: the checkpoint's own where this device is fast in it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DATA = typer.Option(
    "--data", help="Text: a file or folder (text, JSON, CSV, Parquet, compressed), - or hf://datasets/OWNER/NAME."
)
