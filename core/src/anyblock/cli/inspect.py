"""`anyblock inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyblock.cli.options import Json, Model, Revision
from anyblock.contract.trust import TrustRemoteCode
from anyblock.errors import UnsupportedModelError

if TYPE_CHECKING:
    from anyblock.costs.cost_model import Scenario
    from anyblock.report.inspection import Inspection


def inspect(
    model: Model,
    batch: Annotated[int, typer.Option(min=1, help="Sequences served at once.")] = 1,
    length: Annotated[int, typer.Option(min=1, help="Tokens of context.")] = 4096,
    cache_dtype: Annotated[str, typer.Option(help="Element type of the key-value cache.")] = "bfloat16",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Show family, blocks, parameters and memory of a model. Headers are read, weights are not."""
    from anyblock.checkpoint.hub import resolve_model
    from anyblock.costs.cost_model import Scenario
    from anyblock.pipeline.inspection import inspect_model

    folder = resolve_model(model, revision=revision)
    scenario = Scenario(batch, length, cache_dtype)
    try:
        found = inspect_model(folder, scenario, formats=True)
    except UnsupportedModelError as error:
        found = _inferred(folder, scenario, error)
    for note in found.notes:
        typer.echo(f"anyblock: note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    from rich.console import Console

    from anyblock.report.inspection import inspection_view

    Console().print(inspection_view(found))


def _inferred(folder: Path, scenario: Scenario, error: UnsupportedModelError) -> Inspection:
    """Inspect a model without an adapter by what its tiny models show, where an extension can find that out."""
    from anyblock.checkpoint.hub import model_type_of
    from anyblock.family import inferring_families
    from anyblock.pipeline.inspection import inspect_model

    notes: list[str] = []
    with inferring_families(notes.append) as scope:
        try:
            scope.models[model_type_of(str(folder))] = str(folder)
            found = inspect_model(folder, scenario, formats=True)
        except UnsupportedModelError:
            raise error from None
    for note in (str(error), *notes):
        typer.echo(f"anyblock: note: {note}", err=True)
    return found
