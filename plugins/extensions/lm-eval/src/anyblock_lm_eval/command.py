"""`anyblock lm-eval`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from anyblock.contract.trust import TrustRemoteCode

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@_APP.command()
def lm_eval(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder or a hub id: a child, or any model.")],
    tasks: Annotated[
        list[str],
        typer.Option(
            "--tasks", help="A YAML file of lm-evaluation-harness, or a task that comes with it. May be repeated."
        ),
    ],
    teacher: Annotated[str | None, typer.Option(help="Compare with this model.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most so many documents of each task.")] = None,
    few_shot: Annotated[int | None, typer.Option(min=0, help="Solved examples in front of each document.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents at a time.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto.")] = "auto",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run tasks of lm-evaluation-harness on a model, and on its teacher where one is given."""
    from anyblock_lm_eval.table import task_table
    from anyblock_lm_eval.tasks import evaluate_tasks

    scores = evaluate_tasks(
        {"model": model} if teacher is None else {"teacher": teacher, "child": model},
        tasks,
        limit=limit,
        few_shot=few_shot,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        progress=True,
    )
    if as_json:
        typer.echo(json.dumps([score.to_dict() for score in scores], indent=2))
        return
    from rich.console import Console

    Console().print(task_table(scores))


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    try:
        _APP(args=arguments, prog_name="anyblock lm-eval")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
