"""`anyblock push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from anyblock.contract.trust import TrustRemoteCode

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _path(text: str) -> Path:
    return Path(text).expanduser()


@_APP.command()
def push(
    child: Annotated[Path, typer.Argument(metavar="CHILD", help="A child, or any subblock checkpoint.", parser=_path)],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made when it is missing.")],
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Push what `anyblock export` writes in this format."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made when it is missing.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The commit's message.")] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="The run folder; CHILD.run when not given.", parser=_path),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The teacher on the hub; from the run when not given.")
    ] = None,
    license_id: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="The licence; from the teacher's card when not given."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the card and the files, and send nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the branch has, in a commit.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Put a child on the Hugging Face hub in one commit, with a generated model card. Needs HF_TOKEN or `hf auth login`."""
    from anyblock_hub.push import CARD, prepare_push, push_child

    if not dry_run:
        address = push_child(
            child,
            repository,
            format_name=format_name,
            run=run,
            private=private,
            revision=revision,
            message=message,
            base_model=base_model,
            license_id=license_id,
            overwrite=overwrite,
        )
        typer.echo(f"pushed {address}")
        return
    from humanize import naturalsize

    with prepare_push(
        child, repository, format_name=format_name, run=run, base_model=base_model, license_id=license_id
    ) as prepared:
        typer.echo(prepared.card)
        for name, file in {**prepared.files, CARD: prepared.card.encode()}.items():
            length = len(file) if isinstance(file, bytes) else file.stat().st_size
            typer.echo(f"{naturalsize(length, binary=True):>12}  {name}", err=True)


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    try:
        _APP(args=arguments, prog_name="anyblock push")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
