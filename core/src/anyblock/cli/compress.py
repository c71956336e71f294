"""`anyblock compress`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyblock.cli.options import DATA, Overwrite, expanded_path
from anyblock.contract.trust import TrustRemoteCode
from anyblock.errors import UsageError

if TYPE_CHECKING:
    from anyblock.pipeline.compress import CompressResult


def compress(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG.yaml | MODEL OUT [KEY=VALUE ...]", help="A YAML file, or a model and an output."
        ),
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="For instance params=0.8x, params=100M, memory=2.5GiB. May be repeated."),
    ] = None,
    data: Annotated[str | None, DATA] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="The run folder; OUT.run when not given.", parser=expanded_path),
    ] = None,
    hook: Annotated[str | None, typer.Option(help="Importance hook that ranks ffn channels, by name.")] = None,
    effort: Annotated[
        str | None, typer.Option(help="quick, balanced or thorough: how much text, searching and training.")
    ] = None,
    sizes_for: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="PROGRAM", help="What will run the child, llama.cpp, vllm or a format: sizes suit it."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = None,
    dtype: Annotated[str | None, typer.Option(help="What is computed in: float32, bfloat16, float16, or auto.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where tasks are computed, by name: local, or one that a distribution adds.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    infer_family: Annotated[
        bool,
        typer.Option(
            "--infer-family", help="Where no adapter is installed, infer the model's structure on tiny models."
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a smaller child of a model under a budget. Started again, it continues where it stopped.

    Every key of the configuration can be set as KEY=VALUE after the other arguments, for instance
    pruning.ffn.sizes=[0.25,0.5].
    """
    from anyblock.config import load_config
    from anyblock.rich_progress import terminal_progress

    config_file, base = _places([text for text in arguments if not _is_override(text)])
    options = {
        "data.path": data,
        "run_dir": None if run is None else str(run),
        "pruning.ffn.hook": hook,
        "effort": effort,
        "pruning.sizes_for": sizes_for,
        "device": device,
        "dtype": dtype,
        "execution.engine": engine,
        "trust_remote_code": trust_remote_code or None,
        "search.budget": budget or None,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    progress = terminal_progress()
    overrides = [text for text in arguments if _is_override(text)]
    from anyblock.family import inferring_families

    with inferring_families(progress.note) if infer_family else nullcontext() as scope:
        config = load_config(config_file, [*given, *overrides], base, progress=progress)
        if scope is not None:
            from anyblock.checkpoint.hub import model_type_of

            scope.models[model_type_of(config.model)] = config.model

        from anyblock.pipeline.compress import compress as run_compress

        result = run_compress(config, overwrite=overwrite, progress=progress)
    _show(result)


def _is_override(text: str) -> bool:
    key, equals, _ = text.partition("=")
    if text.startswith("~"):
        return "/" not in text  # `~key` takes a key out, `~/model` is a place
    return bool(equals) and all(part.isidentifier() for part in key.lstrip("+").split("."))


def _places(places: list[str]) -> tuple[Path | None, dict[str, str]]:
    if len(places) == 2:
        return None, {"model": places[0], "output": places[1]}
    if len(places) == 1 and Path(places[0]).suffix in (".yaml", ".yml"):
        return expanded_path(places[0]), {}
    raise UsageError(
        f"compress got {len(places)} places: {' '.join(places) or 'none'}", expected="a .yaml file, or MODEL and OUT"
    )


def _show(result: CompressResult) -> None:
    from rich.console import Console

    from anyblock.contract.blocks import block_configs_from_json
    from anyblock.report.side_by_side import side_by_side
    from anyblock.report.table import block_table

    console = Console()
    summary = result.summary
    console.print(
        block_table(
            block_configs_from_json(summary.block_configs), block_configs_from_json(summary.teacher_block_configs)
        )
    )
    if result.evaluation is not None:
        console.print(side_by_side({result.child.path.name: result.evaluation}))
    found = result.solution
    console.print(f"search: {found.status}, predicted score {found.score:.4g}, gap {found.gap:.2g}", highlight=False)
    console.print(f"child:  {result.child.path}\nreport: {result.run / 'report.md'}", highlight=False, soft_wrap=True)
