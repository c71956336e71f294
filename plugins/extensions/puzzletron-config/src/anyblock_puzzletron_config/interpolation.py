"""Interpolation: `${other.key}` and the few resolvers that a load allows, with no state left in OmegaConf."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from anyblock.contract.config_tree import KeyPath, Tree, dotted, split_key
from anyblock.errors import ConfigError, nearest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

Resolver = Callable[..., Any]
"""What `${name:arguments}` calls."""
MAX_CHARACTERS: Final = 100_000
"""Most text that the interpolations of one configuration may produce."""
_START: Final = re.compile(r"\$\{\s*")
_NODE: Final = re.compile(r"([A-Za-z_][\w-]*(?:\.[\w-]+|\[[\w-]+\])*)\s*\}")
_CALL: Final = re.compile(r"([A-Za-z_][\w.-]*)\s*:")
_OPEN: Final = threading.RLock()


def resolve(tree: Tree, path: KeyPath = (), *, resolvers: Mapping[str, Resolver] | None = None) -> Any:
    """Return the value at `path` with its interpolations replaced.

    Only `${absolute.key}` and calls of `resolvers` are known: OmegaConf's own resolvers, the environment (`oc.env`)
    among them, are refused, and so are names that are put together from other interpolations.

    Raises:
        ConfigError: an interpolation is malformed, forbidden, circular, too large or refers to nothing, or a value is
            `???`.
    """
    resolvers = resolvers or {}
    _Sizes(tree, resolvers).of(path, ())
    written: Any = tree.data
    for part in path:
        written = written[part]
    if is_final(written):
        return copy.deepcopy(written)
    with _registered(resolvers):
        try:
            value: Any = OmegaConf.create(tree.data)
            for part in path:
                value = value[part]
            if OmegaConf.is_config(value):
                return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            missing = split_key(error.full_key or "") or path
            raise ConfigError(f"{tree.place(missing)} is ???", expected="a value in place of ???") from error
        except OmegaConfBaseException as error:
            faulty = split_key(error.full_key or "") or path
            raise ConfigError(f"{tree.place(faulty)}: {str(error).splitlines()[0]}") from error
    return value


def is_final(value: Any) -> bool:
    """Return whether nothing in a value stands for something else."""
    if isinstance(value, dict | list):
        return all(map(is_final, value.values() if isinstance(value, dict) else value))
    return not (isinstance(value, str) and ("${" in value or value == "???"))


def interpolations(text: str) -> Iterator[tuple[str, bool]]:
    """Yield every interpolation in `text` as `(name, whether it is a call)`.

    Raises:
        ValueError: one has a form other than `${key}` and `${name:arguments}`.
    """
    for start in _START.finditer(text):
        if node := _NODE.match(text, start.end()):
            yield node.group(1), False
        elif call := _CALL.match(text, start.end()):
            yield call.group(1), True
        else:
            raise ValueError(text[start.start() : start.start() + 40])


class _Sizes:
    """How much text a value becomes once it is resolved, worked out without resolving anything."""

    def __init__(self, tree: Tree, resolvers: Mapping[str, Resolver]) -> None:
        self.tree = tree
        self.resolvers = resolvers
        self.known: dict[KeyPath, int] = {}

    def of(self, path: KeyPath, above: tuple[KeyPath, ...]) -> int:
        """Return how many characters a value expands to.

        Raises:
            ConfigError: interpolations form a circle, or expand to too much.
        """
        if path in above:
            chain = " -> ".join(dotted(step) for step in (*above[above.index(path) :], path))
            raise ConfigError(f"{self.tree.place(path)}: interpolations that form a circle: {chain}")
        if path not in self.known:
            self.known[path] = self._measure(path, (*above, path))
        if self.known[path] > MAX_CHARACTERS:
            raise ConfigError(
                f"{self.tree.place(path) or 'the configuration'}: interpolations expand to too much text",
                expected=f"at most {MAX_CHARACTERS} characters",
            )
        return self.known[path]

    def _measure(self, path: KeyPath, above: tuple[KeyPath, ...]) -> int:
        value = self._raw(path)
        if isinstance(value, dict):
            return 1 + sum(self.of((*path, key), above) for key in value)
        if isinstance(value, list):
            return 1 + sum(self.of((*path, index), above) for index in range(len(value)))
        if not isinstance(value, str) or "${" not in value:
            return len(str(value))
        total = len(value)
        for name, is_call in self._parsed(path, value):
            if not is_call:
                total += self._target(path, name, above)
        return total

    def _parsed(self, path: KeyPath, text: str) -> list[tuple[str, bool]]:
        where = f"{self.tree.place(path)}: "
        try:
            found = list(interpolations(text))
        except ValueError as error:
            raise ConfigError(f"{where}cannot read the interpolation {error}", expected="${some.other.key}") from error
        for name, is_call in found:
            if is_call and name not in self.resolvers:
                raise ConfigError(
                    f"{where}the resolver ${{{name}:...}} is not allowed",
                    expected="${some.other.key}" + "".join(f", ${{{known}:...}}" for known in self.resolvers),
                    hint="write the value itself; configuration reads neither the environment nor other code",
                )
        return found

    def _target(self, path: KeyPath, name: str, above: tuple[KeyPath, ...]) -> int:
        target: KeyPath = ()
        for part in split_key(name):
            target = (*target, part)
            value = self._raw(target)
            if value is _ABSENT:
                known = [key for key in (self._raw(target[:-1]) or {}) if isinstance(key, str)]
                raise ConfigError(
                    f"{self.tree.place(path)} refers to {name!r}, and there is no {dotted(target)!r}",
                    hint=nearest(str(part), known),
                )
            if target != tuple(split_key(name)) and isinstance(value, str):
                raise ConfigError(
                    f"{self.tree.place(path)} refers to {name!r}, and {dotted(target)} is text",
                    expected="a key below a mapping or a list",
                )
        return self.of(target, above)

    def _raw(self, path: KeyPath) -> Any:
        value: Any = self.tree.data
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return _ABSENT
        return value


_ABSENT: Final = object()


@contextmanager
def _registered(resolvers: Mapping[str, Resolver]) -> Iterator[None]:
    """Register resolvers with OmegaConf, whose table is global, and put back what was there before."""
    if not resolvers:
        yield
        return
    with _OPEN:
        # OmegaConf has no public way to read a resolver back, which restoring the caller's own needs.
        from omegaconf.basecontainer import BaseContainer

        before = dict(BaseContainer._resolvers)
        try:
            for name, resolver in resolvers.items():
                OmegaConf.register_resolver(name, resolver, replace=True)
            yield
        finally:
            BaseContainer._resolvers.clear()
            BaseContainer._resolvers.update(before)
