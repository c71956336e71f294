"""Code that comes with a checkpoint runs within `trusting` alone, which `--trust-remote-code` opens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Final, ParamSpec, TypeVar

import typer

P = ParamSpec("P")
R = TypeVar("R")
CODE: Final = "checkpoint_code"
"""The package with the code of checkpoints: `checkpoint_code.MODEL_TYPE` is the folder of one."""
_TRUSTED: ContextVar[bool] = ContextVar("anyblock_trusted", default=False)
is_trusted = _TRUSTED.get


@contextmanager
def trusting(allowed: bool = True) -> Iterator[None]:
    """Within this scope, code that comes with a checkpoint may run; where it is not `allowed`, what holds outside holds."""
    token = _TRUSTED.set(allowed or is_trusted())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def runs_code(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's argument `trust_remote_code` open `trusting` while it runs."""

    @functools.wraps(function)
    def opened(*args: P.args, **kwargs: P.kwargs) -> R:
        with trusting(bool(kwargs.get("trust_remote_code"))):
            return function(*args, **kwargs)

    return opened


def _open(context: typer.Context, allowed: bool) -> bool:
    context.with_resource(trusting(allowed))
    return allowed


TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", callback=_open, help="Run the Python code that comes with the checkpoint."),
]
"""The option of every command that opens a model, also of those that plugins add: it opens `trusting` while the command runs."""
