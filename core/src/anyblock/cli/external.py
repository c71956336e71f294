"""Commands that installed distributions add, through the entry-point group `anyblock.commands`.

Such an entry point names a function that takes the arguments after the command's name and returns an exit code.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from anyblock.errors import AnyBlockError, PluginError, UsageError
from anyblock.plugins.commands import installed_entries

KNOWN: Final = {
    "conformance": ("anyblock-conformance", "Run the conformance suite on an adapter or a checkpoint."),
    "new-family": ("anyblock-new-family", "Write the distribution of an adapter for a model that has none."),
    "bench": ("anyblock-bench", "Measure how fast a model generates, and its teacher next to it."),
    "report": ("anyblock-html-report", "Show a run, or several compared, as one HTML page."),
    "push": ("anyblock-hub", "Put a child on the Hugging Face hub, with a generated model card."),
    "init": ("anyblock-terminal", "Ask for model, purpose and memory, and write the YAML of a run."),
    "schema": ("anyblock-terminal", "Print the JSON Schema of the YAML, for editors."),
    "watch": ("anyblock-terminal", "Show what a run does, while it does it or afterwards."),
    "from-gguf": ("anyblock-gguf", "Write the model of a GGUF file as a Hugging Face checkpoint."),
    "lm-eval": ("anyblock-lm-eval", "Run tasks of lm-evaluation-harness on a child and its teacher."),
}
"""`{command: (the distribution that brings it, what it does)}`; shown and explained where it is not installed."""


class CommandGroup(TyperGroup):
    """Core's commands and those of the installed distributions; the latter are imported when they run."""

    def list_commands(self, ctx: Any) -> list[str]:
        """See `click.Group.list_commands`."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in sorted({*KNOWN, *installed_entries()}) if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See `click.Group.get_command`."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = installed_entries().get(cmd_name)
        if entry is None and cmd_name not in KNOWN:
            return None
        return _command(cmd_name, entry)


def _command(name: str, entry: EntryPoint | None) -> TyperCommand:
    distribution, summary = KNOWN.get(name, ("", ""))
    if entry is not None and entry.dist is not None:
        distribution, summary = entry.dist.name, summary or entry.dist.metadata["Summary"] or ""

    def run(context: typer.Context) -> None:
        """Hand the arguments to the distribution's own function."""
        if entry is None:
            raise UsageError(
                f"the command {name!r} comes with the distribution {distribution}, which is not installed",
                hint=f"python -m pip install {distribution}",
            )
        raise typer.Exit(_run(entry, distribution, list(context.args)))

    app = typer.Typer(add_completion=False)
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command(name, context_settings=settings, help=f"{summary} Comes with {distribution}.")(run)
    return typer.main.get_command(app)  # type: ignore[return-value]


def _run(entry: EntryPoint, distribution: str, arguments: list[str]) -> int:
    try:
        return int(entry.load()(arguments) or 0)
    except (AnyBlockError, OSError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"the command {entry.name!r} of {distribution} failed: {type(error).__name__}: {error}",
            hint=f"--debug shows where; report it to the authors of {distribution}",
        ) from error
