"""Hold an object to the contract before it is registered: every fault that pluggy would let pass in silence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from anyblock.contract.hookspecs import PROJECT, FamilySpec
from anyblock.errors import nearest

_MARK: Final = f"{PROJECT}_impl"
_HOOKABLE: Final = (FunctionType, MethodType, staticmethod, classmethod)
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class HookSpec:
    """One hook of the contract: its argument names, and whether its results are collected from all plugins."""

    name: str
    arguments: tuple[str, ...]
    collecting: bool

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"


def _read_specs() -> dict[str, HookSpec]:
    specs = {}
    for name, function in vars(FamilySpec).items():
        options = getattr(function, f"{PROJECT}_spec", None)
        if options is not None:
            arguments = function.__code__.co_varnames[1 : function.__code__.co_argcount]
            specs[name] = HookSpec(name, arguments, collecting=not options["firstresult"])
    return specs


SPECS: Final[Mapping[str, HookSpec]] = _read_specs()
"""Every hook of `FamilySpec` by name."""


@dataclass(frozen=True)
class Fault:
    """Why an object does not keep the contract: the hook, what is wrong, what the spec allows, and the place."""

    hook: str
    what: str
    expected: str = ""
    hint: str = ""
    location: str = ""

    def __str__(self) -> str:
        parts = [self.what, self.expected and f"expected {self.expected}", self.hint, self.location]
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class _Member:
    """An attribute of a plugin: what its namespace holds, the function inside, whether the first argument is bound."""

    name: str
    raw: object
    function: Callable[..., Any] | None
    bound: bool
    options: Mapping[str, Any] | None


def find_faults(plugin: object) -> list[Fault]:
    """Return every breach of the contract in a plugin object (an instance or a module), in the order of names.

    A breach is an unknown hook, a name of a hook without a marker, a marker on something that cannot be called, an
    argument the spec lacks or that would never be filled in, a wrapper that is not a generator, an object without hooks.
    """
    faults: list[Fault] = []
    hooks = 0
    for member in _members(plugin):
        found = list(_faults(member))
        faults += found
        hooks += member.options is not None
    if not hooks and not faults:
        faults.append(
            Fault("", "it implements no hook", "at least one method marked with anyblock.contract.hookspecs.hookimpl")
        )
    return faults


def implemented(plugin: object) -> set[str]:
    """Return the names of the hooks that the plugin's marked members implement."""
    return {_hook_name(member) for member in _members(plugin) if member.options is not None}


def _hook_name(member: _Member) -> str:
    return str((member.options or {}).get("specname") or member.name)


def _members(plugin: object) -> Iterator[_Member]:
    # Static look-ups only: a property of the plugin must not run while it is being judged.
    for name in sorted(dir(plugin)):
        if name.startswith("__"):
            continue
        raw = inspect.getattr_static(plugin, name, None)
        function = _function(raw)
        options = None
        for holder in (raw, function):
            found = inspect.getattr_static(holder, _MARK, None) if holder is not None else None
            options = found if isinstance(found, Mapping) else options
        own = name in getattr(plugin, "__dict__", {})
        bound = isinstance(raw, classmethod | MethodType) or (isinstance(raw, FunctionType) and not own)
        yield _Member(name, raw, function, bound, options)


def _function(raw: object) -> Callable[..., Any] | None:
    if isinstance(raw, staticmethod | classmethod):
        raw = raw.__func__
    elif isinstance(raw, property):
        raw = raw.fget
    elif isinstance(raw, functools.cached_property | functools.partialmethod | functools.partial):
        raw = raw.func
    elif isinstance(raw, MethodType):
        raw = raw.__func__
    return raw if isinstance(raw, FunctionType) else None


def _faults(member: _Member) -> Iterator[Fault]:
    where = _location(member.function)
    if member.options is None:
        if member.name in SPECS and not isinstance(member.raw, ModuleType):
            yield Fault(
                member.name,
                f"{member.name!r} has the name of a hook but not its marker, so it would never be called",
                hint="put @hookimpl above it, or give it another name",
                location=where,
            )
        return
    hook = _hook_name(member)
    spec = SPECS.get(hook)
    if spec is None:
        if not member.options.get("optionalhook"):
            yield Fault(
                hook,
                f"it marks {hook!r}, which is not a hook",
                hint=nearest(hook, SPECS) or "hookimpl(optionalhook=True) allows a hook that only another core has",
                location=where,
            )
        return
    if member.function is None or not isinstance(member.raw, _HOOKABLE):
        yield Fault(
            hook, f"it marks {member.name!r}, a {type(member.raw).__name__} and not a method", str(spec), location=where
        )
        return
    yield from _argument_faults(member, member.function, spec, where)
    generator = inspect.isgeneratorfunction(member.function)
    wrapper = bool(member.options.get("wrapper") or member.options.get("hookwrapper"))
    if wrapper and not generator:
        yield Fault(
            hook,
            f"{hook!r} is marked as a wrapper but does not yield",
            "`result = yield`, then a return",
            location=where,
        )
    if generator and not wrapper:
        yield Fault(hook, f"{hook!r} yields but is not marked as a wrapper", "hookimpl(wrapper=True)", location=where)
    if inspect.iscoroutinefunction(member.function):
        yield Fault(hook, f"{hook!r} is a coroutine", "a plain method", location=where)


def _argument_faults(member: _Member, function: Callable[..., Any], spec: HookSpec, where: str) -> Iterator[Fault]:
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters[1:] if member.bound else parameters:
        positional = parameter.kind in _POSITIONAL
        if positional and parameter.default is parameter.empty:
            if parameter.name not in spec.arguments:
                yield Fault(
                    spec.name,
                    f"{spec.name!r} asks for the argument {parameter.name!r}, which the spec does not have",
                    str(spec),
                    nearest(parameter.name, spec.arguments),
                    where,
                )
        elif positional and parameter.name in spec.arguments:
            yield Fault(
                spec.name,
                f"{spec.name!r} gives its argument {parameter.name!r} a default, and so would never receive it",
                f"{parameter.name} without a default",
                location=where,
            )
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            yield Fault(
                spec.name,
                f"{spec.name!r} has the keyword-only argument {parameter.name!r}, and hooks are called by position",
                str(spec),
                location=where,
            )


def _location(function: Callable[..., Any] | None) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""
