"""Whose fault it is when an object that a plugin gave fails at work."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from anyblock.errors import AnyBlockError, PluginError, is_out_of_memory
from anyblock.plugins.collecting import CORE
from anyblock.plugins.loading import describe, package_of, place_of
from anyblock.plugins.status import Origin, PluginRecord

_EXHAUSTED: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def blaming(origin: Origin, what: str, plugin: object, *, inside: bool = False) -> Iterator[None]:
    """Within this scope, whatever a plugin's object raises becomes a `PluginError` that names it and the place in its code.

    An `AnyBlockError` passes through: it speaks about the input. So does everything from core's own objects, and a machine
    that has no space or no memory left.

    Args:
        origin: the distribution that gave the object.
        what: what was at work, for instance `the export format 'x'`.
        plugin: the object, or its class.
        inside: whether other code runs in the scope as well, so that only what passes through the plugin's package is its fault.
    """
    try:
        yield
    except AnyBlockError:
        raise
    except Exception as error:
        package = package_of(plugin)
        exhausted = is_out_of_memory(error) or getattr(error, "errno", None) in _EXHAUSTED
        if origin.distribution == CORE or exhausted or (inside and not place_of(error, package)):
            raise
        raise PluginError(f"{what} of {origin} failed: {describe(error, package)}", hint=_advice(origin)) from error


def plugin_error(error: BaseException, records: Iterable[PluginRecord]) -> PluginError | None:
    """Return what to say of an error that passed through a plugin's code, the innermost one's; None where it did not."""
    packages = {entry.partition(".")[0].partition(":")[0]: own for own in records for entry in own.entries.values()}
    culprit, trace = "", error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        culprit, trace = package if package in packages else culprit, trace.tb_next
    if not culprit:
        return None
    origin = packages[culprit].origin()
    return PluginError(f"plugin {origin} failed: {describe(error, culprit)}", hint=_advice(origin))


def _advice(origin: Origin) -> str:
    return f"upgrade {origin.distribution}, or do without it; its authors need what --debug shows"


def check_result(origin: Origin, what: str, result: object, wanted: type | tuple[type, ...], phrase: str) -> None:
    """Refuse a result of a plugin's object that is of another type.

    Raises:
        PluginError: it is; the message names the plugin.
    """
    if not isinstance(result, wanted):
        raise PluginError(
            f"{what} of {origin} returned a {type(result).__name__}",
            expected=phrase,
            hint=_advice(origin),
        )
