"""Import one plugin so that whatever it does wrong stays its own fault."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from types import ModuleType, TracebackType

from anyblock.errors import PluginError
from anyblock.plugins.status import Origin


class PluginLoadError(PluginError):
    """A plugin could not be loaded.

    Attributes:
        location: `file:line` of the innermost frame inside the plugin; empty when its code was never reached.
    """

    def __init__(self, what: str, *, expected: str = "", hint: str = "", location: str = "") -> None:
        super().__init__(what, expected=expected, hint=hint)
        self.location = location


def load_object(origin: Origin, group: str, value: str) -> object:
    """Import the object that an entry point names, and make an instance when it is a class.

    Raises:
        PluginLoadError: anything went wrong, whatever its class; modules of the plugin that this call imported are
            taken out of `sys.modules` again. Only a plain KeyboardInterrupt passes through: that is the user.
    """
    package = value.partition(":")[0].strip().partition(".")[0]
    before = frozenset(sys.modules)
    try:
        with isolated(origin, f"importing {value}", package):
            found = EntryPoint(origin.name, value, group).load()
        return instance_of(found, origin)
    except PluginLoadError:
        _forget(package, before)
        raise


def instance_of(found: object, origin: Origin) -> object:
    """Return `found`, or an instance when it is a class.

    Raises:
        PluginLoadError: the constructor raised.
    """
    if not inspect.isclass(found):
        return found
    with isolated(origin, f"calling {found.__qualname__}()", found.__module__.partition(".")[0]):
        return found()


@contextmanager
def isolated(origin: Origin, doing: str, package: str) -> Iterator[None]:
    """Translate whatever is raised inside into a `PluginLoadError` that names the plugin and the place in `package`."""
    try:
        yield
    except BaseException as error:
        if type(error) is KeyboardInterrupt:
            raise
        raise PluginLoadError(
            f"plugin {origin}: {doing} failed: {describe(error, package)}",
            hint=_advice(error, package, origin),
            location=place_of(error, package),
        ) from error


def describe(error: BaseException, package: str = "") -> str:
    """Return `Class: first line of the message`, and in brackets the place in a package where there is one."""
    message = str(error).strip().partition("\n")[0]
    place = place_of(error, package) if package else ""
    return type(error).__name__ + (f": {message}" if message else "") + (f" ({place})" if place else "")


def package_of(plugin: object) -> str:
    """Return the top-level package that holds a plugin's object: an instance, a class or a module."""
    holder = plugin if isinstance(plugin, type | ModuleType) else type(plugin)
    return str(getattr(holder, "__module__", None) or getattr(holder, "__name__", "")).partition(".")[0]


def place_of(error: BaseException, package: str) -> str:
    """Return `file:line` of the innermost frame inside a package; empty where its code was never reached."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 0}"
    place = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if _inside(trace.tb_frame.f_globals, package):
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _inside(module: Mapping[str, object], package: str) -> bool:
    return str(module.get("__name__", "")).partition(".")[0] == package


def _advice(error: BaseException, package: str, origin: Origin) -> str:
    name = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    missing = name.partition(".")[0]
    if missing and missing != package:
        return f"install what provides the module {missing!r}, or reinstall {origin.distribution}"
    return (
        f"reinstall or upgrade {origin.distribution}, or switch it off: ANYBLOCK_DISABLE_PLUGINS={origin.distribution}"
    )


def _forget(package: str, before: frozenset[str]) -> None:
    if package == __name__.partition(".")[0]:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == package and name not in before]:
        del sys.modules[name]
