"""The calls themselves: one pluggy manager for a descriptor and the extensions, and errors that name who failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, TypeVar

import pluggy

from anyblock.contract.hookspecs import PROJECT, FamilySpec
from anyblock.errors import AnyBlockError, PluginError
from anyblock.plugins.contract import Fault, find_faults, implemented
from anyblock.plugins.loading import PluginLoadError, describe, isolated, package_of
from anyblock.plugins.status import Origin

_T = TypeVar("_T")


@dataclass(frozen=True)
class Registered:
    """A plugin object that keeps the contract, and where it comes from.

    Attributes:
        concerns: the `model_type`s that an extension is for, from its attribute `model_types`; None means every one.
    """

    plugin: object
    origin: Origin
    concerns: frozenset[str] | None = None


class BadResultError(Exception):
    """A hook's result is not what its spec says; `Relay` turns this into a `HookError` that names the plugin."""

    def __init__(self, what: str, expected: str) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected


class HookError(PluginError):
    """A plugin's hook raised, or returned something else than its spec says.

    Attributes:
        hook: the hook's name.
        culprit: the plugin, with its distribution and version.
    """

    def __init__(
        self, hook: str, culprit: Registered, fault: str, expected: str = "", wrappers: Sequence[Registered] = ()
    ) -> None:
        wrapped = f" (wrapped by {' and '.join(str(wrapper.origin) for wrapper in wrappers)})" if wrappers else ""
        super().__init__(
            f"plugin {culprit.origin}{wrapped}: hook {hook}: {fault}",
            expected=expected,
            hint=f"FamilySpec.{hook} says what is right; mend it there, or upgrade {culprit.origin.distribution}",
        )
        self.hook = hook
        self.culprit = culprit


def admit(plugin: object, origin: Origin) -> Registered:
    """Hold a plugin object to the contract.

    Raises:
        PluginLoadError: it breaks the contract; the message lists every breach.
    """
    with isolated(origin, "reading its hooks", package_of(plugin)):
        faults = find_faults(plugin)
        concerns = getattr(plugin, "model_types", None)
    names = None if concerns is None or isinstance(concerns, str) else _names(concerns)
    if concerns is not None and names is None:
        faults.append(Fault("", f"its model_types is {concerns!r}", "a tuple of model_type names"))
    if faults:
        raise PluginLoadError(
            f"plugin {origin} breaks the contract: " + "; ".join(map(str, faults)),
            hint=f"mend it there, or upgrade {origin.distribution}",
            location=next((fault.location for fault in faults if fault.location), ""),
        )
    return Registered(plugin, origin, names)


def _names(value: object) -> frozenset[str] | None:
    if not isinstance(value, Collection) or not all(isinstance(name, str) for name in value):
        return None
    return frozenset(value)


class Relay:
    """Calls hooks of one descriptor, where there is one, and of the extensions around it.

    The descriptor is registered last, so that it answers before any extension that is not a wrapper; extensions are
    ordered by distribution and name, whatever order they were found in.

    Raises:
        PluginLoadError: pluggy refuses a plugin.
    """

    def __init__(self, descriptor: Registered | None, extensions: Iterable[Registered] = ()) -> None:
        self._manager: Final = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(FamilySpec)
        self.descriptor: Final = descriptor
        self._registered: dict[str, Registered] = {}
        ordered = sorted(extensions, key=lambda extension: (extension.origin.distribution, extension.origin.name))
        for registered in (*reversed(ordered), *([] if descriptor is None else [descriptor])):
            self._register(registered)

    @property
    def extensions(self) -> list[Registered]:
        """The extensions in use, sorted by distribution and name."""
        return [registered for registered in reversed(self._registered.values()) if registered is not self.descriptor]

    def _register(self, registered: Registered) -> None:
        key = f"{registered.origin.distribution}:{registered.origin.name}:{len(self._registered)}"
        try:
            self._manager.register(registered.plugin, key)
            callers = self._manager.get_hookcallers(registered.plugin) or []
            lost = implemented(registered.plugin) - {caller.name for caller in callers}
            if lost:
                raise PluginLoadError(f"plugin {registered.origin}: pluggy does not see {', '.join(sorted(lost))}")
        except (pluggy.PluginValidationError, ValueError, PluginLoadError) as error:
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            if isinstance(error, PluginLoadError):
                raise
            raise PluginLoadError(f"plugin {registered.origin} cannot be registered: {describe(error)}") from error
        self._registered[key] = registered

    def remove(self, registered: Registered) -> None:
        """Take an extension out with every hook of its."""
        for key, found in list(self._registered.items()):
            if found is registered:
                self._manager.unregister(name=key)
                del self._registered[key]

    def implements(self, hook: str) -> bool:
        """Return whether some plugin answers this hook, wrappers aside."""
        return bool(self.answers(hook))

    def answers(self, hook: str) -> list[tuple[Registered, Callable[..., Any]]]:
        """Return every plugin that answers this hook, wrappers aside, with its method, in the order of the calls."""
        found = reversed(self._implementations(hook))
        return [(self._registered[impl.plugin_name], impl.function) for impl in found if not _is_wrapper(impl)]

    def wrappers(self, hook: str) -> list[Registered]:
        """Return every plugin that wraps this hook, the outermost first."""
        found = reversed(self._implementations(hook))
        return [self._registered[impl.plugin_name] for impl in found if _is_wrapper(impl)]

    def _implementations(self, hook: str) -> list[Any]:
        return list(getattr(self._manager.hook, hook).get_hookimpls())

    def raw(self, hook: str, /, *, deliberate: tuple[type[Exception], ...] = (AnyBlockError,), **arguments: Any) -> Any:
        """Call a hook; the result is unchecked.

        Raises:
            HookError: the hook raised, that is its cause. What the plugin raised on purpose, one of the classes in
                `deliberate`, passes through: it speaks about the caller's input.
        """
        try:
            return getattr(self._manager.hook, hook)(**arguments)
        except deliberate:
            raise
        except (Exception, SystemExit) as error:
            culprit = self._culprit(hook, error) or self._first()
            raise HookError(hook, culprit, describe(error, package_of(culprit.plugin))) from error

    def call(self, hook: str, check: Callable[[Any], _T], /, **arguments: Any) -> _T:
        """Call a structural hook and return what `check` makes of its result.

        Raises:
            PluginError: the hook raised, or `check` refused its result with a `BadResultError`.
        """
        return self.check(hook, check, self.raw(hook, **arguments))

    def check(self, hook: str, check: Callable[[Any], _T], result: Any) -> _T:
        """Return what `check` makes of a hook's result.

        Raises:
            PluginError: `check` refused it with a `BadResultError`.
        """
        try:
            return check(result)
        except BadResultError as bad:
            involved = [registered for registered, _ in self.answers(hook)][:1] + self.wrappers(hook)
            raise HookError(
                hook, involved[0] if involved else self._first(), bad.what, bad.expected, involved[1:]
            ) from None

    def _first(self) -> Registered:
        return self.descriptor or next(iter(self._registered.values()))

    def _culprit(self, hook: str, error: BaseException) -> Registered | None:
        """Return the plugin whose implementation is innermost on the traceback; wrappers further out passed it on."""
        impls = self._implementations(hook)
        culprit = None
        trace = error.__traceback__
        while trace is not None:
            for impl in impls:
                if _runs(trace.tb_frame, impl):
                    culprit = self._registered[impl.plugin_name]
            trace = trace.tb_next
        return culprit or (self._registered[impls[0].plugin_name] if len(impls) == 1 else None)


def _runs(frame: FrameType, impl: Any) -> bool:
    function = getattr(impl.function, "__func__", impl.function)
    code = getattr(function, "__code__", None)
    if frame.f_code is not code:
        return False
    bound = getattr(impl.function, "__self__", None)
    return bound is None or frame.f_locals.get(frame.f_code.co_varnames[0]) is bound


def _is_wrapper(impl: Any) -> bool:
    return bool(impl.wrapper or impl.hookwrapper)
