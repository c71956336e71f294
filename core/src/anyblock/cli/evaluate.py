"""`anyblock evaluate`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from anyblock.cli.options import Data, Device, Dtype, Json, Model
from anyblock.errors import UsageError


def evaluate(
    model: Model,
    data: Data = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks", help="A YAML file of lm-evaluation-harness, or a task that comes with it. May be repeated."
        ),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Compare with this model.")] = None,
    block_size: Annotated[int | None, typer.Option(min=2, help="Tokens of one window.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens from one window to the next, for sliding windows.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=2, help="Use at most so many tokens of the text.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most so many documents of each task.")] = None,
    few_shot: Annotated[int | None, typer.Option(min=0, help="Solved examples in front of each document.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents of a task at a time.")] = 1,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Run the Python code of a task file, or of a checkpoint with --tasks."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a model on a text, or on tasks of lm-evaluation-harness.

    A text gives perplexity, and with a teacher KL per token and top-1 and top-5 agreement. Tasks need anyblock[lm-eval].
    """
    if (data is None) == (not tasks):
        both = "both --data and" if tasks else "neither --data nor"
        raise UsageError(f"evaluate got {both} --tasks", expected="one of them")
    if tasks:
        models = {"model": model} if teacher is None else {"teacher": teacher, "child": model}
        _on_tasks(
            models,
            tasks,
            as_json=as_json,
            limit=limit,
            few_shot=few_shot,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        return
    from anyblock.checkpoint.hub import resolve_model
    from anyblock.evaluation.evaluate import evaluate as run_evaluate
    from anyblock.modeling.device import compute_dtype, resolve_device, stored_dtype
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.rich_progress import terminal_progress

    assert data is not None
    path = resolve_model(model)
    place = resolve_device(device)
    result = run_evaluate(
        path,
        data=data,
        teacher=None if teacher is None else resolve_model(teacher),
        block_size=block_size,
        stride=stride,
        max_tokens=max_tokens,
        device=place,
        dtype=compute_dtype(dtype, stored_dtype(load_hf_config(path)), place),
        progress=terminal_progress(),
    )
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    from rich.console import Console

    from anyblock.report.side_by_side import side_by_side

    Console().print(side_by_side({path.name: result}))


def _on_tasks(models: dict[str, str], tasks: list[str], *, as_json: bool, **options: Any) -> None:
    from anyblock.evaluation.harness.tasks import evaluate_tasks
    from anyblock.rich_progress import terminal_progress

    scores = evaluate_tasks(models, tasks, progress=terminal_progress(), **options)
    if as_json:
        typer.echo(json.dumps([score.to_dict() for score in scores], indent=2))
        return
    from rich.console import Console

    from anyblock.report.task_table import task_table

    Console().print(task_table(scores))
