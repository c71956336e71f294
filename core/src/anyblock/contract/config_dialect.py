"""`ConfigDialect`: another vocabulary in which a run can be described, translated into AnyBlock's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from anyblock.contract.config_tree import KeyPath, Tree
from anyblock.contract.settings import Section
from anyblock.errors import ConfigError

Role = Literal["hook", "mixin", "layer_descriptor"]


class Names(Protocol):
    """The names that are registered for one family, see `DialectTools.names`. Since 0.2.

    Attributes:
        hooks: `{name: importance hook class}`.
        mixins: `{kind: pruning mixin}`.
        family: the `model_type`; None when it is not known.
    """

    @property
    def hooks(self) -> Mapping[str, type[Any]]:
        """See above."""

    @property
    def mixins(self) -> Mapping[str, Any]:
        """See above."""

    @property
    def family(self) -> str | None:
        """See above."""

    def hook(self, name: str) -> str:
        """Return the registered name of an importance hook; ConfigError when nothing of that name is registered."""

    def mixin(self, name: str) -> str:
        """Return the kind of a pruning mixin; ConfigError when nothing of that name is registered."""

    def layer_descriptor(self, name: str) -> str:
        """Return a kind of pruning that a layer descriptor serves; ConfigError when nothing of that name is registered."""

    def any(self, name: str) -> str:
        """Return what `${get_object:NAME}` stands for: a hook's registered name, or a kind."""


class DialectTools(Protocol):
    """What core lends to a dialect. Since 0.2."""

    @property
    def schema(self) -> type[Section]:
        """The class of a whole configuration, whose sections and defaults can be looked at."""

    @property
    def kind_paths(self) -> Mapping[str, KeyPath]:
        """`{kind of pruning of core: where its settings stand}`; those of any other kind stand at `pruning.KIND`."""

    def names(self) -> Names:
        """Return the names that are valid for the run's family; its adapter is imported only when this is called."""

    def read_yaml(self, path: Path) -> Tree:
        """Read a YAML file, with its lines; ConfigError when it cannot be used."""

    def merge_budgets(self, entries: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
        """Merge `(COST<=VALUE, place)` into `{cost: (value, place)}`; ConfigError when two contradict each other."""

    def gathered(self, faults: Sequence[str]) -> ConfigError:
        """Return one error for one or more faults, each a line of its own."""

    def local_model_type(self, *models: Any) -> str | None:
        """Return the `model_type` of the first of these that is a checkpoint on this machine."""

    def note(self, message: str) -> None:
        """Show one line: what was accepted without having an effect."""


class ConfigDialect(ABC):
    """A vocabulary of another tool. Since 0.2.

    Class attributes:
        summary: one line: whose files it reads.
    """

    summary: ClassVar[str]

    def read(self, path: Path, tree: Tree, tools: DialectTools) -> Tree:
        """Return a file together with what it includes in the dialect's own way; a file that includes nothing as it is."""
        return tree

    @abstractmethod
    def matches(self, tree: Tree, tools: DialectTools) -> bool:
        """Return whether a configuration has keys of this dialect."""

    @abstractmethod
    def translate(self, tree: Tree, tools: DialectTools) -> Tree:
        """Return a configuration that has only AnyBlock's own keys, and no text that stands for something else (`${key}`, `???`).

        Raises:
            ConfigError: one message for every key that is unknown, asks for what AnyBlock does not do, or contradicts another.
        """

    def family_of(self, data: Mapping[str, Any]) -> str | None:
        """Return the `model_type` that a configuration of this dialect names; None when it names none."""
        return None

    def alias(self, role: Role, name: str, names: Names) -> str | None:
        """Return the registered name for which this dialect has `name`; None when it does not know it."""
        return None

    def ignores(self, name: str) -> bool:
        """Return whether the dialect's files refer by `name` to something that has no meaning here."""
        return False
