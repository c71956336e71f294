"""Merge what the plugins contribute to a collecting hook, with clashes named and a broken extension left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from anyblock.errors import PluginError
from anyblock.plugins.contract import SPECS, implemented
from anyblock.plugins.relay import BadResultError, HookError, Registered, Relay
from anyblock.plugins.status import Origin

_T = TypeVar("_T")
CORE: Final = "anyblock"
"""The distribution whose own contributions are never left out."""


class PluginWarning(UserWarning):
    """A plugin is broken and is left out."""


def collect(
    relay: Relay,
    hook: str,
    check: Callable[[Any], Mapping[str, _T]],
    *,
    strict: bool = False,
) -> dict[str, _T]:
    """Return the union of all contributions to `hook`, sorted by name.

    Args:
        check: turns one plugin's result into a mapping, or raises `BadResultError`.
        strict: raise for a broken extension instead of leaving it out with a `PluginWarning`.

    Raises:
        PluginError: the family's own descriptor fails; an extension fails that also implements structural hooks, and so
            cannot be left out half-way; or two plugins contribute different objects under one name.
    """
    while True:
        try:
            results = [check(result) for result in _listed(relay.raw(hook, deliberate=()))]
        except (BadResultError, HookError) as error:
            fault = error if isinstance(error, HookError) else _blame(relay, hook, check, error)
            if strict or not _removable(fault.culprit, relay):
                raise fault from error.__cause__
            leave_out(fault.culprit.origin, fault)
            relay.remove(fault.culprit)
        else:
            return _merged(relay, hook, results)


def leave_out(origin: Origin, error: PluginError) -> None:
    """Warn that an extension is left out, and why."""
    advice = f"; {error.hint}" if error.hint else ""
    warnings.warn(f"extension {origin} is left out: {error.what}{advice}", PluginWarning, stacklevel=3)


def _listed(results: object) -> list[Any]:
    if not isinstance(results, list):
        raise BadResultError(
            f"was wrapped into a {type(results).__name__}", "a wrapper that returns the list of results"
        )
    return results


def _removable(registered: Registered, relay: Relay) -> bool:
    if registered is relay.descriptor or registered.origin.distribution == CORE:
        return False
    return all(SPECS[name].collecting for name in implemented(registered.plugin) if name in SPECS)


def _blame(relay: Relay, hook: str, check: Callable[[Any], object], bad: BadResultError) -> HookError:
    """Find who gave the bad result by asking each plugin alone; when each is right by itself, a wrapper spoilt it."""
    for registered, function in relay.answers(hook):
        result = function()
        try:
            if result is not None:
                check(result)
        except BadResultError as own:
            return HookError(hook, registered, own.what, own.expected)
    wrappers = relay.wrappers(hook)
    return HookError(
        hook, (wrappers or [registered for registered, _ in relay.answers(hook)])[0], bad.what, bad.expected
    )


def owners(relay: Relay, hook: str) -> dict[str, Origin]:
    """Return which plugin contributes each name to a collecting hook; of a name that a wrapper adds, there is none."""
    found: dict[str, Origin] = {}
    for registered, function in reversed(relay.answers(hook)):
        found.update(dict.fromkeys(function() or {}, registered.origin))
    return found


def _merged(relay: Relay, hook: str, results: list[Mapping[str, _T]]) -> dict[str, _T]:
    merged: dict[str, _T] = {}
    clashes = set()
    for result in results:
        for name, value in result.items():
            if merged.setdefault(name, value) is not value:
                clashes.add(name)
    if clashes:
        raise _clash(relay, hook, sorted(clashes))
    return dict(sorted(merged.items()))


def _clash(relay: Relay, hook: str, names: list[str]) -> PluginError:
    lines = []
    removable: set[str] = set()
    for name in names:
        origins = []
        for registered, function in relay.answers(hook):
            if name in (function() or {}):
                origins.append(registered.origin)
                if registered is not relay.descriptor and registered.origin.distribution != CORE:
                    removable.add(registered.origin.distribution)
        origins += [registered.origin for registered in relay.wrappers(hook)] if len(origins) < 2 else []
        lines.append(f"{name!r} comes from {' and from '.join(sorted(map(str, origins)))}")
    remedy = " or ".join(f"ANYBLOCK_DISABLE_PLUGINS={name}" for name in sorted(removable))
    return PluginError(
        f"plugins clash in {hook}: " + "; ".join(lines),
        expected="one plugin for each name; to replace a name on purpose, wrap the hook",
        hint=f"switch one off: {remedy}" if remedy else "use another name in the adapter",
    )
