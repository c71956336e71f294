"""`anyblock init`: a few questions, and the YAML of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from anyblock.errors import InputError, OutputExistsError, UsageError

from anyblock_terminal.recipe import PURPOSES, Answers, context_of, read_memory, recipe
from anyblock_terminal.run_app import run_app
from anyblock_terminal.schema import MARK, schema_text

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
SCHEMA_FILE: Final = "anyblock.schema.json"
"""Name of the schema that is written next to the YAML, so that editors find it without a network."""
_NEEDED: Final = "--model, --data, and --memory or --budget"


@_APP.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The YAML to write.")] = Path("run.yaml"),
    model: Annotated[str | None, typer.Option(help="The teacher: a folder or a hub id.")] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            help="; ".join(f"{name}: {about.summary}" for name, about in PURPOSES.items()) + ". Default: chat."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the run computes: cpu, cuda, cuda:1, mps, or auto. Default: auto.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory of the device that will serve the child, for instance 8GiB.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="In place of --memory, for instance params=0.8x or latency=12ms. May be repeated."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Calibration text: a file, a folder or hf://datasets/...")] = None,
    output: Annotated[
        str | None, typer.Option(help="The child's folder. Default: the model's name and -small.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences served at once; else the purpose's.")] = None,
    length: Annotated[int | None, typer.Option(min=2, help="Tokens of each; else the purpose's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
) -> None:
    """Ask what the child is for, and write a commented YAML for `anyblock compress` with a budget that fits.

    Whatever an option says is not asked. Without a terminal nothing is asked: --model, --data, and --memory or --budget say it.
    """
    asks = sys.stdin.isatty()
    if not asks and (model is None or data is None or (memory is None and not budget)):
        missing = [
            name
            for name, absent in (
                ("--model", model is None),
                ("--data", data is None),
                ("--memory or --budget", memory is None and not budget),
            )
            if absent
        ]
        raise UsageError(
            f"there is no terminal to ask on, and {', '.join(missing)} is not given",
            expected=_NEEDED,
            hint="for instance: anyblock init --model MODEL --data FILE --memory 8GiB; --help shows all options",
        )
    file = file.expanduser()
    if file.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{file} is not a YAML file", expected="a name that ends with .yaml")
    if file.exists() and not overwrite and not (asks and typer.confirm(f"{file} is there already. Replace it?")):
        raise OutputExistsError(f"{file} is there already", hint="give another name, or pass --overwrite")
    schema = file.parent / SCHEMA_FILE
    if schema.exists() and MARK not in schema.read_text(encoding="utf-8"):
        raise OutputExistsError(f"{schema} is there already, and it is not AnyBlock's", hint="choose another folder")
    if memory is not None and budget:
        raise UsageError("--memory and --budget are given", expected="one of them: a budget follows from the memory")
    model = model or typer.prompt("Model (a folder or a hub id)")
    purpose = purpose or (_ask_purpose() if asks else "chat")
    if purpose not in PURPOSES:
        raise UsageError(f"there is no purpose {purpose!r}", expected=", ".join(PURPOSES))
    device = device or (typer.prompt("Device of the run", default="auto") if asks else "auto")
    bytes_free: int | None = None
    if not budget:
        bytes_free = (
            read_memory(memory)
            if memory
            else typer.prompt("Memory of the device that will serve it (8GiB)", value_proc=_memory_answer)
        )
    data = data or typer.prompt("Calibration text (a file or folder)")
    name = Path(model.rstrip("/")).name.partition("@")[0] or "child"
    output = output or (typer.prompt("Folder of the child", default=f"{name}-small") if asks else f"{name}-small")
    batch = batch or PURPOSES[purpose].batch
    length = length or PURPOSES[purpose].length
    answers = Answers(model, purpose, device, bytes_free, tuple(budget or ()), data, output, batch, length)
    _check_answers(answers)
    inspected = _inspect(model, batch, length)
    context = context_of(Path(inspected["path"]))
    if context is not None and context < length:
        typer.echo(f"the model was made for {context} tokens, so the length is {context} and not {length}", err=True)
        answers = replace(answers, length=context)
        inspected = _inspect(model, batch, context)
    _write(file, recipe(answers, inspected, f"./{SCHEMA_FILE}"), inspected["model_type"])
    typer.echo(f"wrote {file}; next: anyblock compress {file}")


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    return run_app(_APP, "init", arguments)


def _ask_purpose() -> str:
    for name, about in PURPOSES.items():
        typer.echo(f"  {name:<10}{about.summary} ({about.batch} x {about.length} tokens)")
    answer: str = typer.prompt("What for", default="chat", value_proc=_purpose_answer)
    return answer


def _purpose_answer(text: str) -> str:
    if text not in PURPOSES:
        raise typer.BadParameter(f"one of {', '.join(PURPOSES)}")
    return text


def _memory_answer(text: str) -> int:
    try:
        return read_memory(text)
    except UsageError as error:
        raise typer.BadParameter(error.in_one_line()) from error


def _inspect(model: str, batch: int, length: int) -> dict[str, Any]:
    """Return what `anyblock inspect --json` says of a model; what it reports of a hub id's download goes to the terminal."""
    command = [sys.executable, "-m", "anyblock", "inspect", model, "--json"]
    done = subprocess.run(
        [*command, "--batch", str(batch), "--length", str(length)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"{model} cannot be used, see above", expected="a model that `anyblock inspect` reads")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _check_answers(answers: Answers) -> None:
    """Refuse answers that make no run, whatever the model, with the model that `compress` checks a YAML with."""
    from anyblock.contract.services import services
    from pydantic import ValidationError

    data = {"model": answers.model, "output": answers.output, "device": answers.device, "data": {"path": answers.data}}
    try:
        services().run_settings().model_validate({**data, "search": {"budget": list(answers.budget)}})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)]
        raise UsageError(
            f"these answers make no run: {'; '.join(faults)}", hint="see `anyblock init --help`"
        ) from error


def _write(file: Path, text: str, model_type: str) -> None:
    """Write the YAML, and its schema next to it."""
    from anyblock.contract.services import services

    file.parent.mkdir(parents=True, exist_ok=True)
    schema = schema_text(services().run_settings(model_type))
    for place, content in ((file.parent / SCHEMA_FILE, schema), (file, text)):
        half = place.with_name(f".{place.name}.part")
        half.write_text(content, encoding="utf-8")
        half.replace(place)
