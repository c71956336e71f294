"""`anyblock bench`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from anyblock.contract.trust import TrustRemoteCode

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@_APP.command()
def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder or a hub id: a child, or any model.")],
    teacher: Annotated[str | None, typer.Option(help="Measure this model next to it.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 1,
    prompt_length: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate; the prefill gives the first.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions that count; one more warms up.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="float32, bfloat16, float16, or auto: the checkpoint's own where this device is fast in it."),
    ] = "auto",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how fast a model generates: first-token time, prefill and decoding speed, operations, memory.

    With --teacher both take turns within each repetition, so that a slow phase of the machine falls on both.
    """
    from anyblock.contract.cost import LatencyScenario
    from anyblock.contract.services import services

    from anyblock_bench.bench import bench as measure
    from anyblock_bench.table import speed_table

    def load(path: str, dtype: str) -> Any:
        """Load one of the models."""
        return services().load_model(path, tokenizer=False, device=device, dtype=dtype).model

    child = load(model, dtype)
    models = {"model": child}
    if teacher is not None:  # it computes in what the child computes in
        models = {"teacher": load(teacher, str(child.dtype).removeprefix("torch.")), "child": child}
    result = measure(models, LatencyScenario(batch, prompt_length, new_tokens), repeats=repeats)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    from rich.console import Console

    Console().print(speed_table(result))


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    try:
        _APP(args=arguments, prog_name="anyblock bench")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
