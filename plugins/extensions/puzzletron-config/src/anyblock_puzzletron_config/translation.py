"""One translation under way: reads the guide's keys, collects own ones and faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyblock.contract.config_dialect import DialectTools
from anyblock.contract.config_tree import KeyPath, Tree, split_key
from anyblock.errors import ConfigError

from anyblock_puzzletron_config.interpolation import resolve
from anyblock_puzzletron_config.walk import assign, lookup


class Translation:
    """Reads the guide's keys from `tree`, and collects own ones in `result`, and `faults`.

    Args:
        tree: the configuration to translate.
        tools: what core lends.
    """

    def __init__(self, tree: Tree, tools: DialectTools) -> None:
        self.tree = tree
        self.tools = tools
        self.names = tools.names
        self.result = Tree()
        self.faults: list[str] = []
        self.resolvers: dict[str, Callable[..., Any]] = {
            "get_object": lambda name: self.names().any(str(name)),
            "to_path": lambda text: str(text),
        }

    def attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Take one step, and keep its fault for the end."""
        try:
            step(*arguments)
        except ConfigError as error:
            self.faults.append(error.in_one_line())

    def raw(self, key: str) -> Any:
        """Return the value of a guide key as it is written; None when it is not there."""
        return lookup(self.tree.data, split_key(key))[1]

    def get(self, key: str) -> Any:
        """Return the value of a guide key with its interpolations replaced; None when it is not there."""
        return None if self.raw(key) is None else resolve(self.tree, split_key(key), resolvers=self.resolvers)

    def text(self, key: str) -> str | None:
        """Return a value that has to be text.

        Raises:
            ConfigError: it is something else.
        """
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{self.place(key)} is {value!r}", expected="a name")
        return value

    def name(self, key: str, find: Callable[[str], str]) -> str | None:
        """Return what the registered name at `key` stands for; None when there is none.

        Raises:
            ConfigError: it is not registered; the message says where it stands.
        """
        name = self.text(key)
        return None if name is None else self.found(split_key(key), name, find)

    def found(self, path: KeyPath, name: str, find: Callable[[str], str]) -> str:
        """Return what `find` finds.

        Raises:
            ConfigError: it finds nothing; the message says where the name stands.
        """
        try:
            return find(name)
        except ConfigError as error:
            place = self.tree.place(path)
            raise ConfigError(f"{place}: {error.what}", expected=error.expected, hint=error.hint) from error

    def place(self, key: str) -> str:
        """Return where a guide key stands."""
        return self.tree.place(split_key(key))

    def has(self, path: KeyPath) -> bool:
        """Whether an own key is set."""
        return lookup(self.result.data, path)[0]

    def put(self, path: KeyPath, value: Any, source: str | KeyPath) -> None:
        """Set an own key to what the guide key `source` says; an option or override of the own key wins.

        Raises:
            ConfigError: the same file gives the own key another value.
        """
        written = split_key(source) if isinstance(source, str) else source
        present, own = lookup(self.result.data, path)
        if present and (own != value or isinstance(own, bool) is not isinstance(value, bool)):
            if self.result.origin(path).startswith(("option", "override")):
                return
            raise ConfigError(
                f"{self.tree.place(written)} contradicts {self.result.place(path)}",
                expected="one of the two, or the same value",
            )
        assign(self.result.data, path, value)
        self.result.origins.setdefault(path, self.tree.origin(written))

    def default(self, path: KeyPath, value: Any) -> None:
        """Set an own key unless it is set."""
        if not self.has(path):
            assign(self.result.data, path, value)

    def keep(self, path: KeyPath) -> None:
        """Take over an own key as it is."""
        assign(self.result.data, path, resolve(self.tree, path, resolvers=self.resolvers))
        below = {key: place for key, place in self.tree.origins.items() if key[: len(path)] == path}
        self.result.origins.update(below)
