"""What was raised while a check ran: where, whether it is one fault with what another check met, and what to do about it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from anyblock.errors import AnyBlockError
from anyblock.plugins import HookError
from anyblock.plugins.loading import package_of, place_of


def fault_of(error: BaseException) -> str:
    """Return a name of the fault behind an error, the same in every check that meets it: the hook, or class and place."""
    if isinstance(error, HookError):
        return f"hook {error.hook}"
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(error)
    return f"{type(error).__name__} at {place}"


def message_of(error: BaseException, adapter: object) -> str:
    """Return what was raised and, unless it is an error with a remedy of its own, where: in the adapter if it got there."""
    if isinstance(error, AnyBlockError):
        return f"{type(error).__name__}: {error}"
    place = place_of(error, package_of(adapter))
    return f"{type(error).__name__}: {error}\n" + (f"  in the adapter: {place}\n" if place else "") + _places(error)


def advice_on(raised: Sequence[BaseException]) -> str:
    """Return what to do about errors that are all that a check found; empty where the check's own advice is the best."""
    hints = [error.hint for error in raised if isinstance(error, AnyBlockError) and error.hint]
    return "\n".join(dict.fromkeys(hints))


def _places(error: BaseException) -> str:
    """Return where an error was raised, the innermost frames last."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return "\n".join(f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames)
