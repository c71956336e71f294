"""`anyblock evaluate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from anyblock.cli.options import DATA, Device, Dtype, Json, Model
from anyblock.contract.trust import TrustRemoteCode


def evaluate(
    model: Model,
    data: Annotated[str, DATA],
    teacher: Annotated[str | None, typer.Option(help="Compare with this model.")] = None,
    block_size: Annotated[int | None, typer.Option(min=2, help="Tokens of one window.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens from one window to the next, for sliding windows.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=2, help="Use at most so many tokens of the text.")] = None,
    field: Annotated[
        str | None, typer.Option(help="Of JSON and tables, the field with the text or the conversation.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Measure a model on a text: perplexity, and with a teacher KL per token and top-1 and top-5 agreement.

    Tasks of lm-evaluation-harness are run by `anyblock lm-eval`, which comes with anyblock-lm-eval.
    """
    from anyblock.checkpoint.hub import resolve_model
    from anyblock.evaluation.evaluate import evaluate as run_evaluate
    from anyblock.modeling.device import compute_dtype, resolve_device, stored_dtype
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.rich_progress import terminal_progress

    path = resolve_model(model)
    place = resolve_device(device)
    result = run_evaluate(
        path,
        data=data,
        field=field,
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
