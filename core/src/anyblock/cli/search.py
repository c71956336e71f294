"""`anyblock search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anyblock.cli.options import Json, Overwrite, expanded_path
from anyblock.errors import UsageError


def search(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The run folder of a finished `anyblock compress`.", parser=expanded_path),
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="For instance params=0.7x; the run's own when not given. May be repeated."),
    ] = None,
    solutions: Annotated[int, typer.Option(min=1, help="How many different solutions to show.")] = 1,
    min_distance: Annotated[int, typer.Option(min=1, help="In how many subblocks two solutions differ at least.")] = 1,
    fix: Annotated[
        list[str] | None, typer.Option("--fix", help="SUBBLOCK=CANDIDATE, for instance block_3_ffn=no_op.")
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option("--forbid", help="SUBBLOCK=CANDIDATE that no solution has. May be repeated.")
    ] = None,
    homogeneous: Annotated[
        bool, typer.Option("--homogeneous", help="The same candidate in every layer, as a baseline.")
    ] = False,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", help="One budget, several values: params=0.9x,0.8x. Writes CSV and JSON for `report`."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Folder for the sweep; RUN/sweep-COST when not given.", parser=expanded_path
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Search other budgets with the scores of an existing run: seconds, no model is run."""
    from anyblock.pipeline.saved_search import Restrictions, search_run

    if sweep is not None:
        _sweep(run, sweep, budget or [], out, overwrite=overwrite, as_json=as_json)
        return
    banned: dict[str, set[str]] = {}
    for group, candidate in map(_choice, forbid or []):
        banned.setdefault(group, set()).add(candidate)
    restrictions = Restrictions(dict(map(_choice, fix or [])), banned, homogeneous)
    found = search_run(run, budget or [], solutions=solutions, min_distance=min_distance, restrictions=restrictions)
    if as_json:
        typer.echo(json.dumps([solution.to_dict() for solution in found.solutions], indent=2))
        return
    from rich.console import Console

    from anyblock.report.table import block_table

    console = Console()
    for solution, blocks in zip(found.solutions, found.blocks, strict=True):
        console.print(block_table(blocks, found.teacher_blocks))
        costs = ", ".join(f"{name} {value:g}" for name, value in solution.costs.items() if name in found.budgeted)
        console.print(
            f"{solution.status}: predicted score {solution.score:.4g}, gap {solution.gap:.2g}; {costs}", highlight=False
        )


def _choice(text: str) -> tuple[str, str]:
    group, equals, candidate = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not a choice", expected="SUBBLOCK=CANDIDATE, for instance block_3_ffn=no_op")
    return group, candidate


def _sweep(run: Path, text: str, budget: list[str], out: Path | None, *, overwrite: bool, as_json: bool) -> None:
    from anyblock.pipeline.saved_search import sweep_run
    from anyblock.search.sweep import sweep_csv, sweep_json

    output = out or run / f"sweep-{text.partition('=')[0]}"
    points = sweep_run(run, text, budget, output, overwrite=overwrite)
    typer.echo(sweep_json(points) if as_json else f"{sweep_csv(points)}{output}")
