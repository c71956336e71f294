"""`anyblock from-gguf`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _path(text: str) -> Path:
    return Path(text).expanduser()


@_APP.command()
def from_gguf(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF file, of any type.", parser=_path)],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the Hugging Face checkpoint is to be.", parser=_path)
    ],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16 or float16; the file's own type when not given, and bfloat16 of quantized files."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FOLDER.")] = False,
) -> None:
    """Write the model of a GGUF file as a Hugging Face checkpoint that is not quantized, with its tokenizer."""
    from anyblock_gguf.reading import write_checkpoint

    typer.echo(write_checkpoint(file, folder, dtype=dtype, overwrite=overwrite))


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    try:
        _APP(args=arguments, prog_name="anyblock from-gguf")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
