"""`anyblock inspect`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from anyblock.cli.options import Json, Model, Revision
from anyblock.errors import UnsupportedModelError


def inspect(
    model: Model,
    batch: Annotated[int, typer.Option(min=1, help="Sequences served at once.")] = 1,
    length: Annotated[int, typer.Option(min=1, help="Tokens of context.")] = 4096,
    cache_dtype: Annotated[str, typer.Option(help="Element type of the key-value cache.")] = "bfloat16",
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Show family, blocks, parameters and memory of a model. Headers are read, weights are not."""
    from anyblock.checkpoint.hub import resolve_model
    from anyblock.costs.cost_model import Scenario
    from anyblock.pipeline.inspection import inspect_model

    folder = resolve_model(model, revision=revision)
    try:
        found = inspect_model(folder, Scenario(batch, length, cache_dtype))
    except UnsupportedModelError as error:
        _show_inferred(str(folder), error, as_json=as_json)
        return
    for note in found.notes:
        typer.echo(f"anyblock: note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    from rich.console import Console

    from anyblock.report.inspection import inspection_view

    Console().print(inspection_view(found))


def _show_inferred(folder: str, error: UnsupportedModelError, *, as_json: bool) -> None:
    """Show what tiny models of the same class have shown, where no adapter is installed."""
    from rich.console import Console

    from anyblock.introspection import infer_named, inferred_model_family
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.report.inferred import inferred_tree

    try:
        inferred = infer_named(folder)
    except UnsupportedModelError:
        raise error from None
    typer.echo(f"anyblock: note: {error}", err=True)
    if as_json:
        typer.echo(json.dumps({"inferred": inferred.to_dict()}, indent=2))
        return
    Console().print(inferred_tree(inferred, inferred_model_family(inferred), load_hf_config(folder)))
