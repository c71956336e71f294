"""`anyblock bench`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from anyblock.cli.options import Device, Dtype, Json, Model


def bench(
    model: Model,
    teacher: Annotated[str | None, typer.Option(help="Measure this model beside it.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 1,
    prompt_length: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate; the prefill gives the first.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions that count; one more warms up.")] = 5,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Measure how fast a model generates: first-token time, prefill and decoding speed, operations, memory.

    With --teacher both take turns within each repetition, so that a slow phase of the machine falls on both.
    """
    from anyblock.checkpoint.hub import resolve_model
    from anyblock.contract.cost import LatencyScenario
    from anyblock.latency.bench import bench as run_bench
    from anyblock.modeling.device import compute_dtype, resolve_device, stored_dtype
    from anyblock.modeling.load import load_model
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.rich_progress import terminal_progress

    path = resolve_model(model)
    place = resolve_device(device)
    chosen = compute_dtype(dtype, stored_dtype(load_hf_config(path)), place)
    paths = {} if teacher is None else {"teacher": resolve_model(teacher)}
    paths["model" if teacher is None else "child"] = path
    result = run_bench(
        {name: load_model(path, device=place, dtype=chosen) for name, path in paths.items()},
        LatencyScenario(batch, prompt_length, new_tokens),
        repeats=repeats,
        progress=terminal_progress(),
    )
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    from rich.console import Console

    from anyblock.report.speed import speed_table

    Console().print(speed_table(result))
