"""`anyblock search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anyblock.cli.options import Json


def search(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder of a finished `anyblock compress`.")],
    budget: Annotated[list[str], typer.Option("--budget", help="For instance params=0.7x. May be repeated.")],
    solutions: Annotated[int, typer.Option(min=1, help="How many different solutions to show.")] = 1,
    min_distance: Annotated[int, typer.Option(min=1, help="In how many subblocks two solutions differ at least.")] = 1,
    as_json: Json = False,
) -> None:
    """Search other budgets with the scores of an existing run: seconds, no model is run."""
    from anyblock.pipeline.other_budgets import search_run

    found = search_run(run, budget, solutions=solutions, min_distance=min_distance)
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
