"""`anyblock new-family`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyblock.cli.options import Overwrite


def new_family(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model_type, a checkpoint, a hub id or a config.json.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a plugin distribution for a model that no adapter serves, from what tiny models of its class show."""
    from rich.console import Console

    from anyblock.introspection import infer_named, inferred_model_family
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.new_family import require_free, verified, write_distribution
    from anyblock.report.inferred import inferred_tree
    from anyblock.rich_progress import terminal_progress

    require_free(destination, overwrite=overwrite)
    inferred = verified(infer_named(model), progress=terminal_progress()).inferred
    path = write_distribution(inferred, destination, overwrite=overwrite)
    console = Console()
    config = load_hf_config(model) if Path(model).expanduser().exists() else inferred.tiny.make()
    console.print(inferred_tree(inferred, inferred_model_family(inferred), config))
    console.print(
        f"written: {path}\nnext:    pip install -e {path} && anyblock conformance {inferred.model_type}", soft_wrap=True
    )
