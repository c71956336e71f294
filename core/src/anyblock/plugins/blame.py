"""Whose fault it is when an object that a plugin gave fails at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anyblock.errors import AnyBlockError, PluginError
from anyblock.plugins.collecting import CORE
from anyblock.plugins.loading import describe, place_of
from anyblock.plugins.status import Origin


@contextmanager
def blaming(origin: Origin, what: str, plugin: object) -> Iterator[None]:
    """Within this scope, whatever a plugin's object raises becomes a `PluginError` that names it and the place in its code.

    An `AnyBlockError` passes through: it speaks about the input. So does everything from core's own objects.

    Args:
        origin: the distribution that gave the object.
        what: what was at work, for instance `the export format 'x'`.
        plugin: the object, or its class.
    """
    try:
        yield
    except AnyBlockError:
        raise
    except Exception as error:
        if origin.distribution == CORE:
            raise
        module = (plugin if isinstance(plugin, type) else type(plugin)).__module__
        place = place_of(error, module.partition(".")[0])
        raise PluginError(
            f"{what} of {origin} failed: {describe(error)}" + (f" ({place})" if place else ""),
            hint=f"report this to the authors of {origin.distribution}, or do without it; --debug shows the whole traceback",
        ) from error


def check_result(origin: Origin, what: str, result: object, wanted: type | tuple[type, ...], phrase: str) -> None:
    """Refuse a result of a plugin's object that is of another type.

    Raises:
        PluginError: it is; the message names the plugin.
    """
    if not isinstance(result, wanted):
        raise PluginError(
            f"{what} of {origin} returned a {type(result).__name__}",
            expected=phrase,
            hint=f"report this to the authors of {origin.distribution}",
        )
