"""`anyblock new-family`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from anyblock.contract.trust import TrustRemoteCode

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@_APP.command()
def new_family(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model_type, a checkpoint, a hub id or a config.json.")
    ],
    destination: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", help="The folder to write; without it what was found is shown.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at DEST.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON instead of a tree.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a plugin distribution for a model that no adapter serves, from what tiny models of its class show."""
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.rich_progress import terminal_progress
    from rich.console import Console

    from anyblock_new_family.introspection import infer_named, inferred_model_family
    from anyblock_new_family.tree import inferred_tree
    from anyblock_new_family.verify import verified
    from anyblock_new_family.write import conformance_command, require_free, write_distribution

    inferred = None
    if destination is not None:
        require_free(destination, overwrite=overwrite)
        inferred = verified(infer_named(model), progress=terminal_progress()).inferred
        write_distribution(inferred, destination, overwrite=overwrite)
    inferred = inferred or infer_named(model)
    if as_json:
        typer.echo(json.dumps(inferred.to_dict(), indent=2))
        return
    console = Console()
    config = load_hf_config(model) if Path(model).expanduser().exists() else inferred.tiny.make()
    console.print(inferred_tree(inferred, inferred_model_family(inferred), config))
    if destination is not None:
        following = f"pip install -e {destination} && {conformance_command(inferred, model)}"
        console.print(f"written: {destination}\nnext:    {following}", soft_wrap=True)


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    try:
        _APP(args=arguments, prog_name="anyblock new-family")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
