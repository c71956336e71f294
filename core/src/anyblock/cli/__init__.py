"""The command line. Nothing here imports torch, transformers or a plugin before a command needs it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from anyblock import __version__
from anyblock.cli.compress import compress
from anyblock.cli.convert import convert
from anyblock.cli.doctor import doctor
from anyblock.cli.evaluate import evaluate
from anyblock.cli.export import ExportCommand, export
from anyblock.cli.external import CommandGroup
from anyblock.cli.families import families
from anyblock.cli.generate import generate
from anyblock.cli.inspect import inspect
from anyblock.cli.list import list_kind
from anyblock.cli.search import search
from anyblock.errors import AnyBlockError, InputError, is_out_of_memory
from anyblock.extensions import installed_plugins
from anyblock.plugins.blame import plugin_error

app = typer.Typer(
    cls=CommandGroup,
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
app.command(cls=ExportCommand)(export)
app.command("list")(list_kind)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 the work failed, 2 wrong usage or unusable input, 130 and 143 on signals."""
    _take_signals()
    warnings.showwarning = _show_warning
    sys.exit(_run(arguments))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one of our own messages, without the place in the code that Python would print."""
    _say(f"warning: {message}")


class _Signalled(BaseException):
    """Ctrl-C or SIGTERM arrived; unwinding lets open files and locks close."""


_received: list[int] = []
"""Signals that arrived. A C extension that meets `_Signalled` may raise an error of its own in its place (torch does so
when it asks an object for its length), so whatever ends a command after a signal is taken for the signal."""


def _take_signals() -> None:
    """Turn Ctrl-C and SIGTERM into `_Signalled`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _signalled)
    others, waiting = sys.unraisablehook, threading.Event()

    def once_more(number: int) -> None:
        """Interrupt the main thread, wherever it is by now."""
        waiting.clear()
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    def deliver_again(ignored: sys.UnraisableHookArgs) -> None:
        """See to it that a signal that came amid a finalizer, out of which Python lets no exception, comes once more."""
        if not isinstance(ignored.exc_value, _Signalled):
            others(ignored)
        elif not waiting.is_set():  # two finalizers in a row are interrupted for one signal
            waiting.set()
            # Not before this hook, which lets no exception out either, has returned.
            again = threading.Timer(0.01, once_more, ignored.exc_value.args)
            again.daemon = True
            again.start()

    sys.unraisablehook = deliver_again


def _signalled(number: int, _: FrameType | None) -> None:
    _received.append(number)
    raise _Signalled(number)


def _run(arguments: list[str] | None) -> int:
    try:
        app(args=arguments)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - `_explain` raises again what is not a failure of ours
        for number in (signal.SIGINT, signal.SIGTERM) if _received else ():
            signal.signal(number, signal.SIG_IGN)  # the command is over; another signal must not garble how it ends
        _debug()
        if _received:
            _say("stopped; what was finished is kept, the same command continues")
            return 128 + _received[0]
        return _explain(error)
    return 0


def _explain(error: BaseException) -> int:
    """Say what failed and what to do; returns the exit code."""
    if isinstance(error, AnyBlockError):
        _say(f"error: {error}")
        return 2 if isinstance(error, InputError) else 1
    if isinstance(error, BrokenPipeError):
        # The reader of our output went away (`anyblock families | head`): nothing is wrong here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) or is_out_of_memory(error):
        what = error or type(error).__name__
        _say(f"error: {what}\nto do: free memory or disk space, or check the path; --debug shows where")
        return 1
    if isinstance(error, Exception):
        # The last resort: a defect, ours or a plugin's, must not look like a stack dump.
        what = (
            f"internal error: {type(error).__name__}: {error}\nto do: run again with --debug and report what it prints"
        )
        blamed = plugin_error(error, installed_plugins())
        _say(what if blamed is None else f"error: {blamed}")
        return 1
    raise error


def _debug() -> None:
    if os.environ.get("ANYBLOCK_DEBUG"):
        import traceback

        traceback.print_exc()


def _say(message: str) -> None:
    sys.stderr.write(f"anyblock: {message}\n")
