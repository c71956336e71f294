"""The command line. Nothing here imports torch, transformers or a plugin before a command needs it."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from anyblock import __version__
from anyblock.cli.compress import compress
from anyblock.cli.conformance import conformance
from anyblock.cli.convert import convert
from anyblock.cli.doctor import doctor
from anyblock.cli.evaluate import evaluate
from anyblock.cli.families import families
from anyblock.cli.generate import generate
from anyblock.cli.inspect import inspect
from anyblock.cli.new_family import new_family
from anyblock.cli.search import search
from anyblock.errors import AnyBlockError, InputError

app = typer.Typer(
    name="anyblock",
    help="Make large language models smaller by giving every decoder layer its own shape.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"anyblock {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ["ANYBLOCK_DEBUG"] = "1"


for command in (families, inspect, convert, compress, search, evaluate, generate, doctor):
    app.command()(command)
app.command("new-family")(new_family)
app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})(
    conformance
)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 the work failed, 2 wrong usage or unusable input, 130 and 143 on signals."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _signalled)
    warnings.showwarning = _show_warning
    sys.exit(_run(arguments))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one of our own messages, without the place in the code that Python would print."""
    _say(f"warning: {message}")


class _Signalled(BaseException):
    """Ctrl-C or SIGTERM arrived; unwinding lets open files and locks close."""


def _signalled(number: int, _: FrameType | None) -> None:
    raise _Signalled(number)


def _run(arguments: list[str] | None) -> int:
    try:
        app(args=arguments)
    except _Signalled as stop:
        _say("stopped; what was finished is kept, the same command continues")
        return 128 + int(stop.args[0])
    except AnyBlockError as error:
        _debug()
        _say(f"error: {error}")
        return 2 if isinstance(error, InputError) else 1
    except BrokenPipeError:
        # The reader of our output went away (`anyblock families | head`): nothing is wrong here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:
        _debug()
        _say(
            f"error: {error or type(error).__name__}\nto do: free memory or disk space, or check the path; --debug shows where"
        )
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours must not look like a stack dump
        _debug()
        _say(
            f"internal error: {type(error).__name__}: {error}\nto do: run again with --debug and report what it prints"
        )
        return 1
    return 0


def _debug() -> None:
    if os.environ.get("ANYBLOCK_DEBUG"):
        import traceback

        traceback.print_exc()


def _say(message: str) -> None:
    sys.stderr.write(f"anyblock: {message}\n")
